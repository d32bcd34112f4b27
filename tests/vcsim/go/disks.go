package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

type flat = types.VirtualDiskFlatVer2BackingInfo

var (
	reLayer = regexp.MustCompile(`-(\d{6})\.vmdk$`)
	reUUID  = regexp.MustCompile(`ddb\.uuid = "([^"]+)"`)
)

// local maps "[ds] path" to the file on this machine.
func local(name string) (string, error) {
	var p object.DatastorePath
	if !p.FromString(name) {
		return "", fmt.Errorf("bad datastore path %q", name)
	}
	ds := datastoreNamed(p.Datastore)
	if ds == nil {
		return "", fmt.Errorf("no datastore %q", p.Datastore)
	}
	return filepath.Join(ds.Info.GetDatastoreInfo().Url, p.Path), nil
}

func datastoreNamed(name string) *simulator.Datastore {
	for _, e := range simulator.Map.All("Datastore") {
		if ds := e.(*simulator.Datastore); ds.Name == name {
			return ds
		}
	}
	return nil
}

func datastoreOf(name string) string {
	var p object.DatastorePath
	p.FromString(name)
	return p.Datastore
}

// flatName is the extent of a disk: a plain image.  That of a snapshot's layer
// has the name of ESXi's sparse format, so that no client can take it for an
// image; here it is one of the whole disk, which only the simulator knows.
func flatName(vmdk string) string {
	if reLayer.MatchString(vmdk) {
		return strings.TrimSuffix(vmdk, ".vmdk") + "-sesparse.vmdk"
	}
	return strings.TrimSuffix(vmdk, ".vmdk") + "-flat.vmdk"
}

// flatBacking returns the disk that a device is and the file that backs it, or nils.
func flatBacking(d types.BaseVirtualDevice) (*types.VirtualDisk, *flat) {
	disk, ok := d.(*types.VirtualDisk)
	if !ok {
		return nil, nil
	}
	if b, ok := disk.Backing.(*flat); ok {
		return disk, b
	}
	return nil, nil
}

// inSnapshots says whether snapshots, and so change tracking, cover a disk.
func inSnapshots(b *flat) bool { return !strings.HasPrefix(b.DiskMode, "independent_") }

// disksOf yields the disks that are files.
func disksOf(devices []types.BaseVirtualDevice, f func(*types.VirtualDisk, *flat) error) error {
	for _, d := range devices {
		if disk, b := flatBacking(d); b != nil {
			if err := f(disk, b); err != nil {
				return err
			}
		}
	}
	return nil
}

// materialise gives the disks of a machine what ESXi would: a capacity in bytes,
// a uuid, a descriptor and a flat file of the full size, a hole.
func materialise(vm *simulator.VirtualMachine) error {
	return disksOf(vm.Config.Hardware.Device, func(disk *types.VirtualDisk, b *flat) error {
		image, err := local(flatName(b.FileName))
		if err != nil {
			return err
		}
		f, err := os.OpenFile(image, os.O_RDWR|os.O_CREATE, 0600)
		if err != nil {
			return err
		}
		defer f.Close()
		st, err := f.Stat()
		if err != nil {
			return err
		}
		if disk.CapacityInBytes == 0 || disk.CapacityInBytes/1024 != disk.CapacityInKB {
			disk.CapacityInBytes = disk.CapacityInKB * 1024
		}
		if disk.CapacityInBytes == 0 { // an existing disk that was attached
			disk.CapacityInBytes = st.Size()
		}
		disk.CapacityInKB = disk.CapacityInBytes / 1024
		if st.Size() < disk.CapacityInBytes {
			if err := f.Truncate(disk.CapacityInBytes); err != nil {
				return err
			}
		}
		if b.Uuid == "" {
			b.Uuid = storedUUID(b.FileName)
		}
		disk.DiskObjectId = fmt.Sprintf("%s-%d", strings.TrimPrefix(vm.Self.Value, "vm-"), disk.Key)
		parent := ""
		if b.Parent != nil {
			parent = b.Parent.FileName
		}
		return describe(b.FileName, b.Uuid, disk.CapacityInBytes, parent)
	})
}

// storedUUID is the uuid in a disk's descriptor, or a new one.
func storedUUID(vmdk string) string {
	if file, err := local(vmdk); err == nil {
		text, _ := os.ReadFile(file)
		if m := reUUID.FindSubmatch(text); m != nil {
			return string(m[1])
		}
	}
	return "6000C29" + uuid.New().String()[7:]
}

// describe writes a disk's descriptor.
func describe(vmdk, id string, size int64, parent string) error {
	file, err := local(vmdk)
	if err != nil {
		return err
	}
	kind, extent, cid, hint := "vmfs", "VMFS", "ffffffff", ""
	if parent != "" {
		kind, extent, cid = "seSparse", "SESPARSE", "fffffffe"
		hint = fmt.Sprintf("parentFileNameHint=%q\n", filepath.Base(parent))
	}
	return os.WriteFile(file, []byte(fmt.Sprintf("# Disk DescriptorFile\nversion=1\nencoding=\"UTF-8\"\nCID=fffffffe\nparentCID=%s\n"+
		"createType=%q\n%s\n# Extent description\nRW %d %s %q\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = \"lsilogic\"\n"+
		"ddb.uuid = %q\nddb.virtualHWVersion = \"13\"\n",
		cid, kind, hint, size/512, extent, filepath.Base(flatName(file)), id)), 0600)
}

const (
	seekData = 3
	seekHole = 4
	ficlone  = 0x40049409
)

// copySparse copies a file with its holes, and shares the blocks where the file system can.
func copySparse(from, to string) error {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close()
	dst, err := os.Create(to)
	if err != nil {
		return err
	}
	defer dst.Close()
	if _, _, no := syscall.Syscall(syscall.SYS_IOCTL, dst.Fd(), ficlone, src.Fd()); no == 0 {
		return nil
	}
	st, err := src.Stat()
	if err != nil {
		return err
	}
	if err := dst.Truncate(st.Size()); err != nil {
		return err
	}
	areas, err := dataIn(src, 0, st.Size())
	if err != nil {
		return err
	}
	for _, a := range areas {
		if _, err := src.Seek(a.start, io.SeekStart); err != nil {
			return err
		}
		if _, err := dst.Seek(a.start, io.SeekStart); err != nil {
			return err
		}
		if _, err := io.CopyN(dst, src, a.end-a.start); err != nil {
			return err
		}
	}
	return nil
}

type area struct{ start, end int64 }

// dataIn returns where a file has data, not holes.
func dataIn(f *os.File, start, end int64) (areas []area, err error) {
	for start < end {
		from, err := syscall.Seek(int(f.Fd()), start, seekData)
		if err == syscall.ENXIO || err == nil && from >= end {
			break
		}
		if err != nil {
			return nil, err
		}
		to, err := syscall.Seek(int(f.Fd()), from, seekHole)
		if err != nil {
			return nil, err
		}
		if to > end {
			to = end
		}
		areas = append(areas, area{from, to})
		start = to
	}
	return areas, nil
}

// heldBy returns the running machine that writes to a file now, or nil.
func heldBy(name string) *simulator.VirtualMachine {
	vm, live := userOf(name)
	if live && vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
		return vm
	}
	return nil
}

// userOf returns the machine whose file this is, and whether it is one that it writes to when it runs.
func userOf(name string) (vm *simulator.VirtualMachine, live bool) {
	for _, e := range simulator.Map.All("VirtualMachine") {
		one := e.(*simulator.VirtualMachine)
		if one.Config == nil {
			continue
		}
		_ = disksOf(one.Config.Hardware.Device, func(_ *types.VirtualDisk, b *flat) error {
			if b.FileName == name || flatName(b.FileName) == name {
				vm, live = one, true
			}
			for p := b.Parent; p != nil && vm == nil; p = p.Parent {
				if p.FileName == name || flatName(p.FileName) == name {
					vm = one
				}
			}
			return nil
		})
		if live {
			break
		}
	}
	return vm, live
}
