package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

type (
	vm   = simulator.VirtualMachine
	shot = simulator.VirtualMachineSnapshot
	tree = []types.VirtualMachineSnapshotTree
)

// shots is what is known of snapshots beside the managed objects.
type shots struct {
	files  map[types.ManagedObjectReference]shotFiles
	left   map[string][]*shot // removed, but their layers are still there; by machine
	broken int                // so many removals from now on leave their layers
	refuse types.BaseMethodFault
	memory map[string][]byte // what a machine's memory holds, if a test has said it
	lastID int32
}

// shotFiles are datastore paths; memory is "" when it was not saved.
type shotFiles struct{ data, memory string }

// memoryPattern is how much of a machine's memory is not zero.
const memoryPattern = 4 << 20

func (s *site) createSnapshot(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.CreateSnapshot_Task)
	ref := s.run(c.this, c.method, "createSnapshot", func() (types.AnyType, types.BaseMethodFault) {
		return s.snapshot(c.vm, req.Name, req.Description, req.Memory, req.Quiesce)
	})
	return &methods.CreateSnapshot_TaskBody{Res: &types.CreateSnapshot_TaskResponse{Returnval: ref}}
}

func (s *site) createSnapshotEx(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.CreateSnapshotEx_Task)
	ref := s.run(c.this, c.method, "createSnapshotEx", func() (types.AnyType, types.BaseMethodFault) {
		return s.snapshot(c.vm, req.Name, req.Description, req.Memory, req.QuiesceSpec != nil)
	})
	return &methods.CreateSnapshotEx_TaskBody{Res: &types.CreateSnapshotEx_TaskResponse{Returnval: ref}}
}

// snapshot freezes the layers of a machine's disks and lets it go on in new ones.
func (s *site) snapshot(vm *vm, name, desc string, memory, quiesce bool) (types.AnyType, types.BaseMethodFault) {
	if f := refusesSnapshot(vm); f != nil {
		return nil, f
	}
	one := &shot{}
	one.Vm, one.Config = vm.Self, *vm.Config
	simulator.Map.Put(one)
	frozen, live, err := s.layers(vm)
	if err != nil {
		simulator.Map.Remove(one.Self)
		return nil, fileFault(vm.Name, err)
	}
	one.Config.Hardware.Device = frozen
	s.shots.lastID++
	on := vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
	files, err := s.saveState(vm, int(s.shots.lastID), memory && on)
	if err != nil {
		simulator.Map.Remove(one.Self)
		return nil, fileFault(vm.Name, err)
	}
	s.shots.files[one.Self] = files
	tools := vm.Guest != nil && vm.Guest.ToolsRunningStatus == string(types.VirtualMachineToolsRunningStatusGuestToolsRunning)
	node := types.VirtualMachineSnapshotTree{
		Snapshot: one.Self, Vm: vm.Self, Name: name, Description: desc, Id: s.shots.lastID, CreateTime: time.Now(),
		State: vm.Runtime.PowerState, Quiesced: quiesce && on && tools, ReplaySupported: types.NewBool(false),
	}
	simulator.Map.Update(vm, []types.PropertyChange{
		{Name: "snapshot", Val: withSnapshot(vm.Snapshot, node)},
		{Name: "config.hardware.device", Val: live},
	})
	s.layout(vm)
	s.counts.snapshots(s)
	return one.Self, nil
}

func refusesSnapshot(vm *vm) types.BaseMethodFault {
	if vm.Config.Template {
		return &types.NotSupported{}
	}
	if vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn {
		return nil
	}
	for _, d := range vm.Config.Hardware.Device {
		if c, ok := d.(types.BaseVirtualSCSIController); ok {
			if bus := c.GetVirtualSCSIController().SharedBus; bus != "" && bus != types.VirtualSCSISharingNoSharing {
				return &types.SharedBusControllerNotSupported{}
			}
		}
	}
	return nil
}

// layers returns the devices as a snapshot has them, and as the machine goes on with them.
func (s *site) layers(vm *vm) (frozen, live []types.BaseVirtualDevice, err error) {
	track := tracks(vm) && !s.tracking.waiting[vm.Self.Value]
	delete(s.tracking.waiting, vm.Self.Value)
	for _, d := range vm.Config.Hardware.Device {
		disk, b := flatBacking(d)
		if b == nil || !inSnapshots(b) {
			frozen, live = append(frozen, d), append(live, d)
			continue
		}
		fd, fb, ld, lb := *disk, *b, *disk, *b
		if track {
			if fb.ChangeId, err = s.freeze(b); err != nil {
				return nil, nil, err
			}
		} else {
			fb.ChangeId = ""
		}
		lb.ChangeId = fb.ChangeId
		lb.FileName, lb.Parent = nextLayer(b.FileName), &fb
		if err := addLayer(b.FileName, lb.FileName, b.Uuid, disk.CapacityInBytes); err != nil {
			return nil, nil, err
		}
		fd.Backing, ld.Backing = &fb, &lb
		frozen, live = append(frozen, &fd), append(live, &ld)
	}
	return frozen, live, nil
}

func addLayer(below, name, id string, size int64) error {
	from, err := local(flatName(below))
	if err != nil {
		return err
	}
	to, err := local(flatName(name))
	if err != nil {
		return err
	}
	if err := copySparse(from, to); err != nil {
		return err
	}
	return describe(name, id, size, below)
}

// nextLayer is the first name after that of a layer which no file has.
func nextLayer(name string) string {
	n, base := 0, strings.TrimSuffix(name, ".vmdk")
	if m := reLayer.FindStringSubmatch(name); m != nil {
		n, _ = strconv.Atoi(m[1])
		base = name[:len(name)-len(m[0])]
	}
	for {
		n++
		next := fmt.Sprintf("%s-%06d.vmdk", base, n)
		if file, err := local(next); err == nil {
			if _, err := os.Stat(file); err != nil {
				return next
			}
		}
	}
}
