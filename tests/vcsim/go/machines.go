package main

import (
	"os"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func (s *site) createVM(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.CreateVM_Task)
	ref := s.run(c.this, c.method, "createVm", func() (types.AnyType, types.BaseMethodFault) {
		vm, fault := s.create(ctx, simulator.Map.Get(c.this).(*simulator.Folder), req)
		if fault != nil {
			return nil, fault
		}
		return vm.Self, nil
	})
	return &methods.CreateVM_TaskBody{Res: &types.CreateVM_TaskResponse{Returnval: ref}}
}

// create makes a machine as its specification says.
func (s *site) create(ctx *simulator.Context, folder *simulator.Folder, req *types.CreateVM_Task) (*vm, types.BaseMethodFault) {
	if fault := prepare(nil, &req.Config); fault != nil {
		return nil, fault
	}
	res, fault := result(folder.CreateVMTask(ctx, req).(*methods.CreateVM_TaskBody).Res.Returnval)
	if fault != nil {
		return nil, fault
	}
	vm := simulator.Map.Get(res.(types.ManagedObjectReference)).(*vm)
	if fault := s.settle(vm); fault != nil {
		return nil, fault
	}
	return vm, nil
}

// prepare makes of a specification one that the package understands as a host does.
func prepare(vm *vm, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	var have object.VirtualDeviceList
	if vm != nil {
		have = vm.Config.Hardware.Device
	}
	home := ""
	if spec.Files != nil {
		home = datastoreOf(spec.Files.VmPathName)
	} else if vm != nil {
		home = datastoreOf(vm.Config.Files.VmPathName)
	}
	if home != "" && datastoreNamed(home) == nil {
		return &types.InvalidDatastorePath{InvalidDatastore: types.InvalidDatastore{Name: home}, DatastorePath: "[" + home + "]"}
	}
	assignKeys(have, spec)
	for i, change := range spec.DeviceChange {
		op := change.GetVirtualDeviceConfigSpec()
		d := op.Device.GetVirtualDevice()
		if !networkExists(d.Backing) {
			return &types.InvalidDeviceSpec{DeviceIndex: int32(i)}
		}
		if op.Operation == types.VirtualDeviceConfigSpecOperationEdit && d.DeviceInfo == nil {
			d.DeviceInfo = &types.Description{}
		}
		if disk, b := flatBacking(op.Device); b != nil {
			if disk.CapacityInKB == 0 {
				disk.CapacityInKB = disk.CapacityInBytes / 1024
			}
			var p object.DatastorePath
			if p.FromString(b.FileName); p.Datastore != "" && datastoreNamed(p.Datastore) == nil {
				return &types.InvalidDatastorePath{InvalidDatastore: types.InvalidDatastore{Name: p.Datastore}, DatastorePath: b.FileName}
			} else if p.Path == "" && p.Datastore == home {
				b.FileName = "" // the package would take the directory of whoever has the name, not the machine's own
			}
		}
	}
	return nil
}

func networkExists(backing types.BaseVirtualDeviceBackingInfo) bool {
	switch b := backing.(type) {
	case *types.VirtualEthernetCardNetworkBackingInfo:
		for _, kind := range []string{"Network", "DistributedVirtualPortgroup", "OpaqueNetwork"} {
			for _, e := range simulator.Map.All(kind) {
				if networkName(e) == b.DeviceName {
					return true
				}
			}
		}
		return false
	case *types.VirtualEthernetCardDistributedVirtualPortBackingInfo:
		return simulator.Map.Get(types.ManagedObjectReference{Type: "DistributedVirtualPortgroup", Value: b.Port.PortgroupKey}) != nil
	}
	return true
}

func networkName(e mo.Entity) string {
	switch n := e.(type) {
	case *mo.Network:
		return n.Name
	case *mo.OpaqueNetwork:
		return n.Name
	case *simulator.DistributedVirtualPortgroup:
		return n.Name
	}
	return e.Entity().Name
}

// settle completes a machine after its hardware has changed.
func (s *site) settle(vm *vm) types.BaseMethodFault {
	if err := materialise(vm); err != nil {
		return fileFault(vm.Name, err)
	}
	label(vm.Config.Hardware.Device)
	vm.Capability.ChangeTrackingSupported = types.NewBool(true)
	vm.Capability.QuiescedSnapshotsSupported = true
	if vm.Runtime.ConsolidationNeeded == nil {
		vm.Runtime.ConsolidationNeeded = types.NewBool(false)
	}
	vm.Config.ExtraConfig = merged(vm.Config.ExtraConfig)
	vm.Summary.Config.Annotation = vm.Config.Annotation
	if name := guestNames[vm.Config.GuestId]; name != "" {
		vm.Config.GuestFullName, vm.Summary.Config.GuestFullName = name, name
	}
	for _, e := range simulator.Map.All("VirtualMachine") { // a vCenter lets no two have the same
		if other := e.(*simulator.VirtualMachine); other != vm && other.Config != nil && other.Config.InstanceUuid == vm.Config.InstanceUuid {
			vm.Config.InstanceUuid = uuid.New().String()
			vm.Summary.Config.InstanceUuid = vm.Config.InstanceUuid
		}
	}
	if file, err := local(nvramOf(vm)); err == nil {
		if st, err := os.Stat(file); err == nil && st.Size() == 0 {
			if err := os.WriteFile(file, append([]byte("MRVN"), pattern(8192, 1)...), 0600); err != nil {
				return fileFault(file, err)
			}
		}
	}
	simulator.Map.Update(vm, []types.PropertyChange{{Name: "config", Val: vm.Config}})
	s.layout(vm)
	return nil
}

// guestNames are those that tests use.
var guestNames = map[string]string{
	"debian11_64Guest":           "Debian GNU/Linux 11 (64-bit)",
	"debian10_64Guest":           "Debian GNU/Linux 10 (64-bit)",
	"ubuntu64Guest":              "Ubuntu Linux (64-bit)",
	"rhel8_64Guest":              "Red Hat Enterprise Linux 8 (64-bit)",
	"otherLinux64Guest":          "Other Linux (64-bit)",
	"windows9Server64Guest":      "Microsoft Windows Server 2016 (64-bit)",
	"windows2019srv_64Guest":     "Microsoft Windows Server 2019 (64-bit)",
	"windows9_64Guest":           "Microsoft Windows 10 (64-bit)",
	"otherGuest":                 "Other (32-bit)",
	"otherGuest64":               "Other (64-bit)",
	"freebsd12_64Guest":          "FreeBSD 12 (64-bit)",
	"other3xLinux64Guest":        "Other 3.x Linux (64-bit)",
	"other4xLinux64Guest":        "Other 4.x Linux (64-bit)",
	"windows7Server64Guest":      "Microsoft Windows Server 2008 R2 (64-bit)",
	"windows8Server64Guest":      "Microsoft Windows Server 2012 (64-bit)",
	"other5xLinux64Guest":        "Other 5.x or later Linux (64-bit)",
	"windows2019srvNext_64Guest": "Microsoft Windows Server 2022 (64-bit)",
}

// merged keeps of each key the last value; an empty one removes it.
func merged(options []types.BaseOptionValue) (out []types.BaseOptionValue) {
	last := map[string]int{}
	for i, o := range options {
		last[o.GetOptionValue().Key] = i
	}
	for i, o := range options {
		v := o.GetOptionValue()
		if last[v.Key] == i && v.Value != "" && v.Value != nil {
			out = append(out, o)
		}
	}
	return out
}

func (s *site) reconfigure(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.ReconfigVM_Task)
	ref := s.run(c.this, c.method, "reconfigVm", func() (types.AnyType, types.BaseMethodFault) {
		return nil, s.change(ctx, c.vm, &req.Spec)
	})
	return &methods.ReconfigVM_TaskBody{Res: &types.ReconfigVM_TaskResponse{Returnval: ref}}
}

// change is what ReconfigVM_Task does.
func (s *site) change(ctx *simulator.Context, vm *vm, spec *types.VirtualMachineConfigSpec) types.BaseMethodFault {
	if fault := prepare(vm, spec); fault != nil {
		return fault
	}
	was := tracks(vm)
	doomed := destroyed(vm, spec)
	unveil := veil(vm)
	_, fault := result(vm.ReconfigVMTask(ctx, &types.ReconfigVM_Task{This: vm.Self, Spec: *spec}).(*methods.ReconfigVM_TaskBody).Res.Returnval)
	unveil()
	if fault != nil {
		return fault
	}
	for _, file := range doomed { // the package knows no layers
		_ = os.Remove(file)
	}
	if tracks(vm) && !was {
		s.forget(vm) // a new history begins, at the next stun
		if s.tracking.late || vm.Snapshot != nil {
			s.tracking.waiting[vm.Self.Value] = true
		}
	}
	return s.settle(vm)
}

// veil hides disks that are no files from the package, which would panic, until the function that it returns is called.
func veil(vm *vm) func() {
	hidden := map[int32]types.BaseVirtualDeviceBackingInfo{}
	for _, d := range vm.Config.Hardware.Device {
		raw, ok := d.GetVirtualDevice().Backing.(*types.VirtualDiskRawDiskMappingVer1BackingInfo)
		if !ok {
			continue
		}
		hidden[d.GetVirtualDevice().Key] = raw
		d.GetVirtualDevice().Backing = &flat{VirtualDeviceFileBackingInfo: raw.VirtualDeviceFileBackingInfo, DiskMode: raw.DiskMode}
	}
	return func() {
		for _, d := range vm.Config.Hardware.Device {
			if raw := hidden[d.GetVirtualDevice().Key]; raw != nil {
				d.GetVirtualDevice().Backing = raw
			}
		}
	}
}
