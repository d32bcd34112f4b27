package main

import (
	"fmt"
	"reflect"

	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/vim25/types"
)

// kind is the name of a device's type in the API.
func kind(d types.BaseVirtualDevice) string { return reflect.TypeOf(d).Elem().Name() }

// firstKey is where the keys of a kind of device begin on a host.
func firstKey(d types.BaseVirtualDevice, controller types.BaseVirtualDevice) int32 {
	switch d := d.(type) {
	case *types.VirtualIDEController:
		return 200 + d.BusNumber // each machine has its two
	case types.BaseVirtualSCSIController:
		return 1000
	case types.BaseVirtualSATAController:
		return 15000
	case *types.VirtualNVMEController:
		return 31000
	case *types.VirtualUSBController, *types.VirtualUSBXHCIController:
		return 7000
	case types.BaseVirtualEthernetCard:
		return 4000
	case *types.VirtualDisk, *types.VirtualCdrom:
		switch controller.(type) {
		case types.BaseVirtualSATAController:
			return 16000
		case *types.VirtualNVMEController:
			return 32000
		case *types.VirtualIDEController:
			return 3000
		}
		return 2000
	}
	return 13000
}

// assignKeys gives new devices keys as a host does, and changes what refers to the ones of the specification.
func assignKeys(have object.VirtualDeviceList, spec *types.VirtualMachineConfigSpec) {
	taken := map[int32]bool{}
	byKey := map[int32]types.BaseVirtualDevice{}
	for _, d := range have {
		taken[d.GetVirtualDevice().Key] = true
		byKey[d.GetVirtualDevice().Key] = d
	}
	fresh := map[int32]int32{}
	for _, change := range spec.DeviceChange { // controllers may come after what hangs on them
		op := change.GetVirtualDeviceConfigSpec()
		if op.Operation == types.VirtualDeviceConfigSpecOperationAdd {
			byKey[op.Device.GetVirtualDevice().Key] = op.Device
		}
	}
	for _, change := range spec.DeviceChange {
		op := change.GetVirtualDeviceConfigSpec()
		d := op.Device.GetVirtualDevice()
		if op.Operation != types.VirtualDeviceConfigSpecOperationAdd || d.Key > 0 && !taken[d.Key] {
			taken[d.Key] = true
			continue
		}
		key := firstKey(op.Device, byKey[d.ControllerKey])
		_, ide := op.Device.(*types.VirtualIDEController)
		for ; taken[key] && !ide; key++ {
		}
		taken[key] = true
		if d.Key != 0 {
			fresh[d.Key] = key
		}
		d.Key = key
	}
	renumber(fresh, spec)
}

func renumber(fresh map[int32]int32, spec *types.VirtualMachineConfigSpec) {
	follow := func(key *int32) {
		if to, ok := fresh[*key]; ok && *key < 0 {
			*key = to
		}
	}
	for _, change := range spec.DeviceChange {
		follow(&change.GetVirtualDeviceConfigSpec().Device.GetVirtualDevice().ControllerKey)
	}
	if spec.BootOptions == nil {
		return
	}
	for _, o := range spec.BootOptions.BootOrder {
		switch o := o.(type) {
		case *types.VirtualMachineBootOptionsBootableDiskDevice:
			follow(&o.DeviceKey)
		case *types.VirtualMachineBootOptionsBootableEthernetDevice:
			follow(&o.DeviceKey)
		}
	}
}

// label names the devices as a host does; numbers count within a kind.
func label(devices []types.BaseVirtualDevice) {
	counts := map[string]int{}
	name := func(d types.BaseVirtualDevice, what string, from int) {
		v := d.GetVirtualDevice()
		text := fmt.Sprintf("%s %d", what, from+counts[what])
		counts[what]++
		if info := v.DeviceInfo; info != nil {
			v.DeviceInfo = &types.Description{Label: text, Summary: info.GetDescription().Summary}
		} else {
			v.DeviceInfo = &types.Description{Label: text, Summary: text}
		}
	}
	for _, d := range devices {
		switch d.(type) {
		case *types.VirtualDisk:
			name(d, "Hard disk", 1)
		case types.BaseVirtualSCSIController:
			name(d, "SCSI controller", 0)
		case types.BaseVirtualSATAController:
			name(d, "SATA controller", 0)
		case *types.VirtualNVMEController:
			name(d, "NVME controller", 0)
		case types.BaseVirtualEthernetCard:
			name(d, "Network adapter", 1)
		case *types.VirtualCdrom:
			name(d, "CD/DVD drive", 1)
		}
	}
}

// place is where a disk hangs, as the keys of leases tell it: VirtualLsiLogicController0:1.
func place(devices object.VirtualDeviceList, d types.BaseVirtualDevice) string {
	v := d.GetVirtualDevice()
	unit := int32(0)
	if v.UnitNumber != nil {
		unit = *v.UnitNumber
	}
	c := devices.FindByKey(v.ControllerKey)
	if c == nil {
		return fmt.Sprintf("%s:%d", kind(d), unit)
	}
	bus := int32(0)
	if b, ok := c.(types.BaseVirtualController); ok {
		bus = b.GetVirtualController().BusNumber
	}
	return fmt.Sprintf("%s%d:%d", kind(c), bus, unit)
}
