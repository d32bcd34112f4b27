package main

import (
	"bytes"
	"crypto/sha1"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// block is how finely changes are told, as by ESXi for small disks.
const block = 64 << 10

// tracking is changed-block tracking. A change id names a copy of the disk as it was then, so the answers are exact,
// unless a test asks for the rougher ones of real hosts.
type tracking struct {
	disks    map[string]*history // by the uuid of the disk
	waiting  map[string]bool     // machines for which it begins at the snapshot after the next
	maxAreas int
	coarse   int64  // round areas out to multiples of this
	late     bool   // begin only at the second snapshot after it was switched on
	star     string // what "*" answers: "", "whole" or "fault"
}

// history is that of one disk since it was switched on or reset.
type history struct {
	id    string // the part of its change ids before the slash
	epoch int
}

func newHistory() *history {
	u := strings.ReplaceAll(uuid.New().String(), "-", "")
	var pairs []string
	for i := 0; i < 32; i += 2 {
		pairs = append(pairs, u[i:i+2])
	}
	return &history{id: strings.Join(pairs[:8], " ") + "-" + strings.Join(pairs[8:], " ")}
}

// freeze makes the change id of a disk as it is now. The file of the disk must not be written to from now on: the
// layer of a snapshot replaces it when the snapshot is removed, so that a second name keeps what it was.
func (s *site) freeze(b *flat) (string, error) {
	h := s.tracking.disks[b.Uuid]
	if h == nil {
		h = newHistory()
		s.tracking.disks[b.Uuid] = h
	}
	h.epoch++
	id := fmt.Sprintf("%s/%d", h.id, h.epoch)
	image, err := local(flatName(b.FileName))
	if err != nil {
		return "", err
	}
	if err := os.Link(image, s.frozen(id)); err != nil {
		return id, copySparse(image, s.frozen(id)) // on another file system
	}
	return id, nil
}

func (s *site) frozen(changeID string) string {
	return filepath.Join(s.dir, fmt.Sprintf("%x.frozen", sha1.Sum([]byte(changeID))))
}

// forget voids the change ids of a machine.
func (s *site) forget(vm *simulator.VirtualMachine) {
	_ = disksOf(vm.Config.Hardware.Device, func(_ *types.VirtualDisk, b *flat) error {
		delete(s.tracking.disks, b.Uuid)
		return nil
	})
}

func tracks(vm *simulator.VirtualMachine) bool {
	return vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled
}

func (s *site) queryChangedDiskAreas(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.QueryChangedDiskAreas)
	body := new(methods.QueryChangedDiskAreasBody)
	invalid := func(what string) soap.HasFault {
		body.Fault_ = simulator.Fault("A specified parameter was not correct: "+what, &types.InvalidArgument{InvalidProperty: what})
		return body
	}
	devices := c.vm.Config.Hardware.Device
	if req.Snapshot != nil {
		shot, ok := simulator.Map.Get(*req.Snapshot).(*simulator.VirtualMachineSnapshot)
		if !ok {
			body.Fault_ = simulator.Fault("The object has already been deleted", &types.ManagedObjectNotFound{Obj: *req.Snapshot})
			return body
		}
		devices = shot.Config.Hardware.Device
	} else if c.vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		return invalid("snapshot")
	}
	disk, b := diskWithKey(devices, req.DeviceKey)
	if b == nil {
		return invalid("deviceKey")
	}
	if req.StartOffset < 0 || req.StartOffset >= disk.CapacityInBytes {
		return invalid("startOffset")
	}
	info, err := s.changed(b, disk.CapacityInBytes, req.StartOffset, req.ChangeId)
	if err != nil {
		body.Fault_ = simulator.Fault("Error caused by file "+b.FileName, fileFault(b.FileName, err))
		return body
	}
	body.Res = &types.QueryChangedDiskAreasResponse{Returnval: *info}
	return body
}

func diskWithKey(devices []types.BaseVirtualDevice, key int32) (*types.VirtualDisk, *flat) {
	for _, d := range devices {
		if disk, b := flatBacking(d); b != nil && (disk.Key == key || key == 0) {
			return disk, b
		}
	}
	return nil, nil
}

// changed answers QueryChangedDiskAreas.
func (s *site) changed(b *flat, size, start int64, since string) (*types.DiskChangeInfo, error) {
	if b.ChangeId == "" {
		return nil, fmt.Errorf("no change tracking")
	}
	now, err := os.Open(s.frozen(b.ChangeId))
	if err != nil {
		return nil, err
	}
	defer now.Close()
	begin := start / block * block
	var areas []area
	switch {
	case since == "*" && s.tracking.star == "fault":
		return nil, fmt.Errorf("the datastore cannot tell what is allocated")
	case since == "*" && s.tracking.star == "whole":
		areas = []area{{begin, size}}
	case since == "*":
		areas, err = dataIn(now, begin, size)
	case strings.Split(since, "/")[0] != strings.Split(b.ChangeId, "/")[0]:
		return nil, fmt.Errorf("change id %q is not of this disk's history", since)
	default:
		var then *os.File
		if then, err = os.Open(s.frozen(since)); err != nil {
			return nil, err
		}
		defer then.Close()
		areas, err = differences(then, now, begin, size)
	}
	if err != nil {
		return nil, err
	}
	unit := int64(block)
	if s.tracking.coarse > unit {
		unit = s.tracking.coarse
	}
	return s.page(rounded(areas, unit, size), start, size), nil
}

// rounded rounds areas out to a unit and joins those that touch.
func rounded(areas []area, unit, size int64) (out []area) {
	for _, a := range areas {
		a.start, a.end = a.start/unit*unit, (a.end+unit-1)/unit*unit
		if a.end > size {
			a.end = size
		}
		if k := len(out); k > 0 && out[k-1].end >= a.start {
			if a.end > out[k-1].end {
				out[k-1].end = a.end
			}
			continue
		}
		out = append(out, a)
	}
	return out
}

// page is the first part of an answer; the caller asks again from where it ends.
func (s *site) page(areas []area, start, size int64) *types.DiskChangeInfo {
	info := &types.DiskChangeInfo{StartOffset: start, Length: size - start}
	for _, a := range areas {
		if a.start < start {
			a.start = start
		}
		if a.end <= a.start {
			continue
		}
		if len(info.ChangedArea) == s.tracking.maxAreas {
			info.Length = a.start - start
			break
		}
		info.ChangedArea = append(info.ChangedArea, types.DiskChangeExtent{Start: a.start, Length: a.end - a.start})
	}
	return info
}

// differences returns the blocks in which two images differ.
func differences(then, now *os.File, start, size int64) (out []area, err error) {
	var touched []area
	for _, f := range []*os.File{then, now} {
		data, err := dataIn(f, start, size)
		if err != nil {
			return nil, err
		}
		touched = append(touched, rounded(data, block, size)...)
	}
	seen := map[int64]bool{}
	for _, t := range touched {
		for off := t.start; off < t.end; off += block {
			seen[off] = true
		}
	}
	x, y := make([]byte, block), make([]byte, block)
	for off := start; off < size; off += block {
		if !seen[off] {
			continue
		}
		nx, ex := now.ReadAt(x, off)
		ny, ey := then.ReadAt(y, off)
		if ex != nil && ex != io.EOF {
			return nil, ex
		}
		if ey != nil && ey != io.EOF {
			return nil, ey
		}
		if nx != ny || !bytes.Equal(x[:nx], y[:ny]) {
			out = append(out, area{off, off + block})
		}
	}
	return out, nil
}
