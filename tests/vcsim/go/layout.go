package main

import (
	"os"
	"path"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// filesOf builds a machine's layoutEx.
type filesOf struct {
	types.VirtualMachineFileLayoutEx
}

func (l *filesOf) add(name, kind string) int32 {
	for _, f := range l.File {
		if f.Name == name {
			return f.Key
		}
	}
	file, err := local(name)
	if err != nil {
		return -1
	}
	st, err := os.Stat(file)
	if err != nil {
		return -1
	}
	key := int32(len(l.File))
	l.File = append(l.File, types.VirtualMachineFileLayoutExFileInfo{
		Key: key, Name: name, Type: kind, Size: st.Size(), UniqueSize: st.Size(), Accessible: types.NewBool(true),
	})
	return key
}

func (l *filesOf) disks(devices []types.BaseVirtualDevice) (out []types.VirtualMachineFileLayoutExDiskLayout) {
	_ = disksOf(devices, func(disk *types.VirtualDisk, b *flat) error {
		one := types.VirtualMachineFileLayoutExDiskLayout{Key: disk.Key}
		for ; b != nil; b = b.Parent {
			keys := []int32{l.add(b.FileName, "diskDescriptor"), l.add(flatName(b.FileName), "diskExtent")}
			one.Chain = append([]types.VirtualMachineFileLayoutExDiskUnit{{FileKey: keys}}, one.Chain...)
		}
		out = append(out, one)
		return nil
	})
	return out
}

// layout tells a machine's files anew.
func (s *site) layout(vm *vm) {
	l := &filesOf{}
	l.Timestamp = time.Now()
	dir := path.Dir(vm.Config.Files.VmPathName)
	l.add(vm.Config.Files.VmPathName, "config")
	l.add(nvramOf(vm), "nvram")
	l.add(path.Join(dir, "vmware.log"), "log")
	l.Disk = l.disks(vm.Config.Hardware.Device)
	for _, one := range snapshotsOf(vm) {
		files := s.shots.files[one.Self]
		item := types.VirtualMachineFileLayoutExSnapshotLayout{
			Key: one.Self, DataKey: l.add(files.data, "snapshotData"), MemoryKey: -1, Disk: l.disks(one.Config.Hardware.Device),
		}
		if files.memory != "" {
			item.MemoryKey = l.add(files.memory, "snapshotMemory")
		}
		l.Snapshot = append(l.Snapshot, item)
	}
	simulator.Map.Update(vm, []types.PropertyChange{{Name: "layoutEx", Val: &l.VirtualMachineFileLayoutEx}})
}

// nvramOf is the datastore path of a machine's firmware variables.
func nvramOf(vm *vm) string {
	return strings.TrimSuffix(vm.Config.Files.VmPathName, ".vmx") + ".nvram"
}
