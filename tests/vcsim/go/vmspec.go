package main

import (
	"fmt"
	"os"
	"path"

	govmomi "github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// vmSpec is a machine as a test orders it.
type vmSpec struct {
	Name           string            `json:"name"`
	Folder         string            `json:"folder"`
	Host           string            `json:"host"`
	Datastore      string            `json:"datastore"`
	Disks          []diskSpec        `json:"disks"`
	Nics           []nicSpec         `json:"nics"`
	Firmware       string            `json:"firmware"`
	SecureBoot     bool              `json:"secure_boot"`
	Guest          string            `json:"guest"`
	MemoryMB       int64             `json:"memory_mb"`
	CPUs           int32             `json:"cpus"`
	CoresPerSocket int32             `json:"cores_per_socket"`
	Annotation     string            `json:"annotation"`
	Tracking       bool              `json:"tracking"`
	On             bool              `json:"on"`
	Template       bool              `json:"template"`
	ExtraConfig    map[string]string `json:"extra_config"`
}

type diskSpec struct {
	Size       int64  `json:"size"`
	Controller string `json:"controller"` // pvscsi, lsilogic, lsilogic-sas, buslogic, ahci, ide, nvme
	Mode       string `json:"mode"`       // persistent, independent_persistent, ...
	Raw        string `json:"raw"`        // a raw device mapping: physicalMode or virtualMode
	Shared     string `json:"shared"`     // the bus: physicalSharing or virtualSharing
	Sharing    string `json:"sharing"`    // the disk: sharingMultiWriter
	KeyID      string `json:"key_id"`     // encrypted
	Datastore  string `json:"datastore"`
	Thick      bool   `json:"thick"`
}

type nicSpec struct {
	Kind    string `json:"kind"` // vmxnet3, e1000, e1000e
	Network string `json:"network"`
	Mac     string `json:"mac"`
}

// addVM makes a machine.
func (s *site) addVM(o *vmSpec) (*vm, error) {
	host, err := hostNamed(o.Host)
	if err != nil {
		return nil, err
	}
	folder, err := s.folderAt(o.Folder)
	if err != nil {
		return nil, err
	}
	config := types.VirtualMachineConfigSpec{
		Name: o.Name, GuestId: o.Guest, Files: &types.VirtualMachineFileInfo{VmPathName: "[" + o.Datastore + "]"},
		MemoryMB: o.MemoryMB, NumCPUs: o.CPUs, NumCoresPerSocket: o.CoresPerSocket, Annotation: o.Annotation, Firmware: o.Firmware,
		ChangeTrackingEnabled: types.NewBool(o.Tracking),
		BootOptions:           &types.VirtualMachineBootOptions{EfiSecureBootEnabled: types.NewBool(o.SecureBoot)},
	}
	for key, value := range o.ExtraConfig {
		config.ExtraConfig = append(config.ExtraConfig, &types.OptionValue{Key: key, Value: value})
	}
	var devices govmomi.VirtualDeviceList
	for i := range o.Disks {
		if devices, err = addDisk(devices, &o.Disks[i], o.Name); err != nil {
			return nil, err
		}
	}
	for _, nic := range o.Nics {
		d, err := newNic(nic)
		if err != nil {
			return nil, err
		}
		devices = append(devices, d)
	}
	config.DeviceChange, _ = devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	vm, fault := s.create(s.context(), folder, &types.CreateVM_Task{This: folder.Self, Config: config, Pool: poolOf(host), Host: &host.Self})
	if fault != nil {
		return nil, fmt.Errorf("%s: %#v", kindOf(fault), fault)
	}
	mapRaw(vm, o.Disks)
	s.layout(vm)
	if o.On {
		vm.PowerOnVMTask(s.context(), &types.PowerOnVM_Task{This: vm.Self})
	}
	if o.Template {
		vm.MarkAsTemplate(&types.MarkAsTemplate{This: vm.Self})
	}
	return vm, nil
}

// addDisk adds a disk, with a controller when there is none that fits.
func addDisk(devices govmomi.VirtualDeviceList, o *diskSpec, dir string) (govmomi.VirtualDeviceList, error) {
	controller, devices, err := controllerFor(devices, o)
	if err != nil {
		return nil, err
	}
	b := &flat{DiskMode: o.Mode, ThinProvisioned: types.NewBool(!o.Thick), Sharing: o.Sharing}
	if o.Datastore != "" {
		b.FileName = "[" + o.Datastore + "] " + dir + "/" + dir + ".vmdk"
		for n := 1; ; n++ {
			file, err := local(b.FileName)
			if err != nil {
				return nil, err
			}
			if err := os.MkdirAll(path.Dir(file), 0700); err != nil {
				return nil, err
			}
			if _, err := os.Stat(file); err != nil && !named(devices, b.FileName) {
				break
			}
			b.FileName = fmt.Sprintf("[%s] %s/%s_%d.vmdk", o.Datastore, dir, dir, n)
		}
	}
	if o.KeyID != "" {
		b.KeyId = &types.CryptoKeyId{KeyId: o.KeyID, ProviderId: &types.KeyProviderId{Id: "kms"}}
	}
	disk := &types.VirtualDisk{CapacityInKB: o.Size / 1024, CapacityInBytes: o.Size}
	disk.Backing = b
	disk.Key = devices.NewKey()
	devices.AssignController(disk, controller.(types.BaseVirtualController))
	return append(devices, disk), nil
}

func named(devices []types.BaseVirtualDevice, file string) (found bool) {
	_ = disksOf(devices, func(_ *types.VirtualDisk, b *flat) error {
		found = found || b.FileName == file
		return nil
	})
	return found
}

var controllerKinds = map[string]func() types.BaseVirtualDevice{
	"":             func() types.BaseVirtualDevice { return &types.ParaVirtualSCSIController{} },
	"pvscsi":       func() types.BaseVirtualDevice { return &types.ParaVirtualSCSIController{} },
	"lsilogic":     func() types.BaseVirtualDevice { return &types.VirtualLsiLogicController{} },
	"lsilogic-sas": func() types.BaseVirtualDevice { return &types.VirtualLsiLogicSASController{} },
	"buslogic":     func() types.BaseVirtualDevice { return &types.VirtualBusLogicController{} },
	"ahci":         func() types.BaseVirtualDevice { return &types.VirtualAHCIController{} },
	"ide":          func() types.BaseVirtualDevice { return &types.VirtualIDEController{} },
	"nvme":         func() types.BaseVirtualDevice { return &types.VirtualNVMEController{} },
}

func controllerFor(devices govmomi.VirtualDeviceList, o *diskSpec) (types.BaseVirtualDevice, govmomi.VirtualDeviceList, error) {
	make := controllerKinds[o.Controller]
	if make == nil {
		return nil, nil, fmt.Errorf("no controller %q", o.Controller)
	}
	fresh := make()
	shared := types.VirtualSCSISharing(o.Shared)
	if shared == "" {
		shared = types.VirtualSCSISharingNoSharing
	}
	buses := int32(0)
	for _, d := range devices {
		scsi, isSCSI := d.(types.BaseVirtualSCSIController)
		if _, wants := fresh.(types.BaseVirtualSCSIController); wants && isSCSI || kind(d) == kind(fresh) {
			buses++
		}
		if kind(d) == kind(fresh) && (!isSCSI || scsi.GetVirtualSCSIController().SharedBus == shared) {
			return d, devices, nil
		}
	}
	fresh.(types.BaseVirtualController).GetVirtualController().BusNumber = buses
	if scsi, ok := fresh.(types.BaseVirtualSCSIController); ok {
		c := scsi.GetVirtualSCSIController()
		c.SharedBus, c.HotAddRemove, c.ScsiCtlrUnitNumber = shared, types.NewBool(true), 7
	}
	fresh.GetVirtualDevice().Key = devices.NewKey()
	return fresh, append(devices, fresh), nil
}

func newNic(o nicSpec) (types.BaseVirtualDevice, error) {
	kinds := map[string]types.BaseVirtualDevice{"": &types.VirtualVmxnet3{}, "vmxnet3": &types.VirtualVmxnet3{},
		"e1000": &types.VirtualE1000{}, "e1000e": &types.VirtualE1000e{}}
	d := kinds[o.Kind]
	if d == nil {
		return nil, fmt.Errorf("no network card %q", o.Kind)
	}
	card := d.(types.BaseVirtualEthernetCard).GetVirtualEthernetCard()
	card.Key, card.MacAddress, card.AddressType = -1000, o.Mac, "generated"
	if o.Mac != "" {
		card.AddressType = "manual"
	}
	if o.Network == "" {
		o.Network = "VM Network"
	}
	for _, e := range simulator.Map.All("DistributedVirtualPortgroup") {
		if pg := e.(*simulator.DistributedVirtualPortgroup); pg.Name == o.Network {
			dvs := simulator.Map.Get(*pg.Config.DistributedVirtualSwitch).(*simulator.DistributedVirtualSwitch)
			card.Backing = &types.VirtualEthernetCardDistributedVirtualPortBackingInfo{
				Port: types.DistributedVirtualSwitchPortConnection{PortgroupKey: pg.Key, SwitchUuid: dvs.Uuid}}
			return d, nil
		}
	}
	card.Backing = &types.VirtualEthernetCardNetworkBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: o.Network}}
	return d, nil
}

// mapRaw makes those disks raw device mappings that are to be; the package can only make files.
func mapRaw(vm *vm, order []diskSpec) {
	n := 0
	_ = disksOf(vm.Config.Hardware.Device, func(disk *types.VirtualDisk, b *flat) error {
		if n < len(order) && order[n].Raw != "" {
			disk.Backing = &types.VirtualDiskRawDiskMappingVer1BackingInfo{
				VirtualDeviceFileBackingInfo: b.VirtualDeviceFileBackingInfo, CompatibilityMode: order[n].Raw, DiskMode: b.DiskMode,
				LunUuid: "02000000006000c29" + b.Uuid[8:16], DeviceName: "vml.02000000006000c29" + b.Uuid[8:16], Uuid: b.Uuid,
			}
		}
		n++
		return nil
	})
}
