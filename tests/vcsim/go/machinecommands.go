package main

import (
	"encoding/json"
	"fmt"
	"path"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/types"
)

// machineCommands are about one machine.
var machineCommands = map[string]func(*site, *vm, *order) (interface{}, error){
	"disk": func(s *site, vm *vm, o *order) (interface{}, error) {
		file, err := currentFile(vm, o.Key)
		return dict{"path": file}, err
	},
	"disks": func(s *site, vm *vm, o *order) (interface{}, error) {
		out := []dict{}
		for _, d := range vm.Config.Hardware.Device {
			if disk, ok := d.(*types.VirtualDisk); ok {
				file := disk.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo().FileName
				out = append(out, dict{"key": disk.Key, "size": disk.CapacityInBytes, "file": file})
			}
		}
		return out, nil
	},
	"nvram": func(s *site, vm *vm, o *order) (interface{}, error) {
		file, err := local(nvramOf(vm))
		return dict{"path": file}, err
	},
	"reset-cbt": func(s *site, vm *vm, o *order) (interface{}, error) {
		s.forget(vm)
		return nil, nil
	},
	"set": func(s *site, vm *vm, o *order) (interface{}, error) {
		for at, value := range o.Values {
			if err := setProperty(vm, at, value); err != nil {
				return nil, err
			}
		}
		return nil, nil
	},
	"power": func(s *site, vm *vm, o *order) (interface{}, error) {
		if o.On {
			return nil, taskError(vm.PowerOnVMTask(s.context(), &types.PowerOnVM_Task{This: vm.Self}).(*methods.PowerOnVM_TaskBody).Res.Returnval)
		}
		return nil, taskError(vm.PowerOffVMTask(s.context(), &types.PowerOffVM_Task{This: vm.Self}).(*methods.PowerOffVM_TaskBody).Res.Returnval)
	},
	"rename": func(s *site, vm *vm, o *order) (interface{}, error) {
		name, _ := json.Marshal(o.Name)
		for _, at := range []string{"name", "config.name"} {
			if err := setProperty(vm, at, name); err != nil {
				return nil, err
			}
		}
		return nil, nil
	},
	"move": func(s *site, vm *vm, o *order) (interface{}, error) {
		to, err := s.folderAt(o.Folder)
		if err != nil {
			return nil, err
		}
		return nil, taskError(to.MoveIntoFolderTask(s.context(), &types.MoveIntoFolder_Task{
			This: to.Self, List: []types.ManagedObjectReference{vm.Self}}).(*methods.MoveIntoFolder_TaskBody).Res.Returnval)
	},
	"destroy": func(s *site, vm *vm, o *order) (interface{}, error) {
		if vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn {
			vm.PowerOffVMTask(s.context(), &types.PowerOffVM_Task{This: vm.Self})
		}
		return nil, asError(s.destroy(s.context(), vm))
	},
	"add-disk": func(s *site, vm *vm, o *order) (interface{}, error) {
		had := len(vm.Config.Hardware.Device)
		devices, err := addDisk(vm.Config.Hardware.Device, o.Disk, path.Base(vm.Name))
		if err != nil {
			return nil, err
		}
		spec := types.VirtualMachineConfigSpec{}
		spec.DeviceChange, _ = devices[had:].ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
		if err := asError(s.change(s.context(), vm, &spec)); err != nil {
			return nil, err
		}
		key := vm.Config.Hardware.Device[len(vm.Config.Hardware.Device)-1].GetVirtualDevice().Key
		return dict{"key": key}, nil
	},
	"remove-disk": func(s *site, vm *vm, o *order) (interface{}, error) {
		disk, b := diskWithKey(vm.Config.Hardware.Device, o.Key)
		if b == nil {
			return nil, fmt.Errorf("no disk %d", o.Key)
		}
		return nil, asError(s.change(s.context(), vm, &types.VirtualMachineConfigSpec{DeviceChange: []types.BaseVirtualDeviceConfigSpec{
			&types.VirtualDeviceConfigSpec{Operation: types.VirtualDeviceConfigSpecOperationRemove,
				FileOperation: types.VirtualDeviceConfigSpecFileOperationDestroy, Device: disk}}}))
	},
	"resize-disk": func(s *site, vm *vm, o *order) (interface{}, error) {
		disk, b := diskWithKey(vm.Config.Hardware.Device, o.Key)
		if b == nil {
			return nil, fmt.Errorf("no disk %d", o.Key)
		}
		disk.CapacityInKB, disk.CapacityInBytes = o.Size/1024, o.Size
		return nil, asError(s.settle(vm))
	},
	"snapshot": func(s *site, vm *vm, o *order) (interface{}, error) {
		ref, fault := s.snapshot(vm, o.Name, o.Description, o.Memory, false)
		if fault != nil {
			return nil, asError(fault)
		}
		return dict{"id": ref.(types.ManagedObjectReference).Value}, nil
	},
	"remove-snapshot": func(s *site, vm *vm, o *order) (interface{}, error) {
		if vm.Snapshot != nil {
			var found *shot
			walk(vm.Snapshot.RootSnapshotList, func(n *types.VirtualMachineSnapshotTree) {
				if n.Name == o.Name || n.Snapshot.Value == o.Name {
					found, _ = simulator.Map.Get(n.Snapshot).(*shot)
				}
			})
			if found != nil {
				return nil, asError(s.remove(vm, found))
			}
		}
		return nil, fmt.Errorf("%s has no snapshot %q", vm.Name, o.Name)
	},
	"tag": func(s *site, vm *vm, o *order) (interface{}, error) {
		return nil, s.tag(vm, o.Category, o.Name)
	},
	"attribute": func(s *site, vm *vm, o *order) (interface{}, error) {
		if !simulator.Map.IsVPX() {
			return nil, fmt.Errorf("only a vCenter has custom attributes")
		}
		fields := simulator.Map.CustomFieldsManager()
		fields.AddCustomFieldDef(&types.AddCustomFieldDef{Name: o.Name, MoType: "VirtualMachine"}) // which may be there
		for _, f := range fields.Field {
			if f.Name == o.Name {
				fields.SetField(s.context(), &types.SetField{Entity: vm.Self, Key: f.Key, Value: o.Value})
			}
		}
		return nil, nil
	},
}

func taskError(ref types.ManagedObjectReference) error {
	_, fault := result(ref)
	return asError(fault)
}

func asError(fault types.BaseMethodFault) error {
	if fault == nil {
		return nil
	}
	return fmt.Errorf("%s: %+v", kindOf(fault), fault)
}
