package main

import (
	"fmt"
	"path"
	"sort"
	"sync"
	"time"

	"github.com/google/uuid"
	govmomi "github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// leases are those of exports and imports.
type leases struct {
	mu    sync.Mutex
	all   map[string]*lease
	ttl   time.Duration
	delay time.Duration         // how long a lease is "initializing"
	fail  types.BaseMethodFault // the next lease does not become ready
}

// lease is a HttpNfcLease; its files are behind /nfc/TOKEN/NAME.
type lease struct {
	mo.HttpNfcLease
	s        *site
	entity   types.ManagedObjectReference
	token    string // stands in its URLs
	files    map[string]leaseFile
	manifest []types.HttpNfcLeaseManifestEntry
	imports  bool
	closed   bool
	timer    *time.Timer
}

// leaseFile is a disk, or another file when its size is -1.
type leaseFile struct {
	file      string
	size      int64
	datastore string
}

// newLease makes a lease on disks, and ends it when it hears nothing of its client.
func (s *site) newLease(vm *vm, devices govmomi.VirtualDeviceList, imports bool) (*lease, error) {
	l := &lease{s: s, entity: vm.Self, token: uuid.New().String(), files: map[string]leaseFile{}, imports: imports}
	l.Self = types.ManagedObjectReference{Type: "HttpNfcLease", Value: "session[" + uuid.New().String() + "]" + l.token}
	l.State = types.HttpNfcLeaseStateInitializing
	info := &types.HttpNfcLeaseInfo{Lease: l.Self, Entity: vm.Self, LeaseTimeout: int32(s.leases.ttl.Seconds())}
	err := disksOf(devices, func(disk *types.VirtualDisk, b *flat) error {
		file, err := local(flatName(b.FileName))
		if err != nil {
			return err
		}
		target := fmt.Sprintf("disk-%d.vmdk", len(l.files))
		l.files[target] = leaseFile{file, disk.CapacityInBytes, datastoreOf(b.FileName)}
		info.TotalDiskCapacityInKB += disk.CapacityInKB
		info.DeviceUrl = append(info.DeviceUrl, l.url(vm, place(devices, disk), target, true))
		return nil
	})
	if err != nil {
		return nil, err
	}
	if !imports && vm.Config.Firmware == string(types.GuestOsDescriptorFirmwareTypeEfi) {
		if file, err := local(nvramOf(vm)); err == nil {
			l.files["file-0.nvram"] = leaseFile{file, -1, ""}
			info.DeviceUrl = append(info.DeviceUrl, l.url(vm, "nvram", "file-0.nvram", false))
		}
	}
	l.timer = time.AfterFunc(s.leases.ttl, l.expire)
	simulator.Map.Put(l)
	s.leases.mu.Lock()
	s.leases.all[l.token] = l
	fault, delay := s.leases.fail, s.leases.delay
	s.leases.fail = nil
	s.leases.mu.Unlock()
	s.counts.leases(len(s.leases.open()))
	if delay == 0 {
		l.begin(info, fault)
	} else {
		time.AfterFunc(delay, func() {
			s.world.Lock()
			defer s.world.Unlock()
			l.begin(info, fault)
		})
	}
	return l, nil
}

func (l *lease) url(vm *vm, place, target string, disk bool) types.HttpNfcLeaseDeviceUrl {
	return types.HttpNfcLeaseDeviceUrl{
		Key: fmt.Sprintf("/%s/%s", vm.Self.Value, place), ImportKey: fmt.Sprintf("/%s/%s", vm.Name, place),
		// "*": the client puts in the host that it talks to, as with a real ESXi.
		Url: "https://*/nfc/" + path.Join(l.token, target), SslThumbprint: l.s.thumb, Disk: types.NewBool(disk), TargetId: target,
	}
}

// begin makes a lease ready, or fail.
func (l *lease) begin(info *types.HttpNfcLeaseInfo, fault types.BaseMethodFault) {
	if l.closed {
		return
	}
	if fault != nil {
		l.end(types.HttpNfcLeaseStateError, fault)
		return
	}
	simulator.Map.Update(l, []types.PropertyChange{
		{Name: "info", Val: info}, {Name: "state", Val: types.HttpNfcLeaseStateReady}, {Name: "initializeProgress", Val: int32(100)},
	})
}

// end closes a lease; what an import has made goes unless it was completed.
func (l *lease) end(state types.HttpNfcLeaseState, fault types.BaseMethodFault) {
	if l.closed {
		return
	}
	l.closed = true
	l.timer.Stop()
	changes := []types.PropertyChange{{Name: "state", Val: state}}
	if fault != nil {
		changes = append(changes, types.PropertyChange{Name: "error", Val: &types.LocalizedMethodFault{Fault: fault, LocalizedMessage: kindOf(fault)}})
	}
	simulator.Map.Update(l, changes)
	if vm, ok := simulator.Map.Get(l.entity).(*vm); ok && l.imports && state != types.HttpNfcLeaseStateDone {
		_ = l.s.destroy(l.s.context(), vm)
	}
}

func (l *lease) expire() {
	l.s.world.Lock()
	defer l.s.world.Unlock()
	l.end(types.HttpNfcLeaseStateError, &types.Timedout{})
}

// open lists the leases that are neither completed nor aborted.
func (a *leases) open() []dict {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := []dict{}
	for _, l := range a.all {
		if l.closed {
			continue
		}
		vm := ""
		if one, ok := simulator.Map.Get(l.entity).(*simulator.VirtualMachine); ok {
			vm = one.Name
		}
		out = append(out, dict{"id": l.Self.Value, "vm": vm, "import": l.imports, "state": l.State, "progress": l.TransferProgress})
	}
	sort.Slice(out, func(i, j int) bool { return out[i]["id"].(string) < out[j]["id"].(string) })
	return out
}

// HttpNfcLeaseProgress is called by the package, as are the methods below.
func (l *lease) HttpNfcLeaseProgress(ctx *simulator.Context, req *types.HttpNfcLeaseProgress) soap.HasFault {
	body := new(methods.HttpNfcLeaseProgressBody)
	if l.closed {
		body.Fault_ = simulator.Fault("The lease has timed out", new(types.Timedout))
		return body
	}
	l.timer.Reset(l.s.leases.ttl)
	l.TransferProgress = req.Percent
	body.Res = new(types.HttpNfcLeaseProgressResponse)
	return body
}

func (l *lease) HttpNfcLeaseGetManifest(ctx *simulator.Context, req *types.HttpNfcLeaseGetManifest) soap.HasFault {
	return &methods.HttpNfcLeaseGetManifestBody{Res: &types.HttpNfcLeaseGetManifestResponse{Returnval: l.manifest}}
}

func (l *lease) HttpNfcLeaseComplete(ctx *simulator.Context, req *types.HttpNfcLeaseComplete) soap.HasFault {
	body := new(methods.HttpNfcLeaseCompleteBody)
	if l.closed || l.State != types.HttpNfcLeaseStateReady {
		body.Fault_ = simulator.Fault("The lease is not valid", new(types.InvalidState))
		return body
	}
	l.end(types.HttpNfcLeaseStateDone, nil)
	body.Res = new(types.HttpNfcLeaseCompleteResponse)
	return body
}

func (l *lease) HttpNfcLeaseAbort(ctx *simulator.Context, req *types.HttpNfcLeaseAbort) soap.HasFault {
	var fault types.BaseMethodFault
	if req.Fault != nil {
		fault = req.Fault.Fault
	}
	l.end(types.HttpNfcLeaseStateError, fault)
	return &methods.HttpNfcLeaseAbortBody{Res: new(types.HttpNfcLeaseAbortResponse)}
}

func (s *site) exportVM(ctx *simulator.Context, c *call) soap.HasFault {
	body := new(methods.ExportVmBody)
	if state := c.vm.Runtime.PowerState; state != types.VirtualMachinePowerStatePoweredOff {
		body.Fault_ = simulator.Fault("The attempted operation cannot be performed in the current state (Powered on).",
			&types.InvalidPowerState{RequestedState: types.VirtualMachinePowerStatePoweredOff, ExistingState: state})
		return body
	}
	l, err := s.newLease(c.vm, c.vm.Config.Hardware.Device, false)
	if err != nil {
		body.Fault_ = simulator.Fault(err.Error(), fileFault(c.vm.Name, err))
		return body
	}
	body.Res = &types.ExportVmResponse{Returnval: l.Self}
	return body
}

func (s *site) exportSnapshot(ctx *simulator.Context, c *call) soap.HasFault {
	body := new(methods.ExportSnapshotBody)
	var devices []types.BaseVirtualDevice // without disks that the snapshot does not freeze
	for _, d := range simulator.Map.Get(c.this).(*shot).Config.Hardware.Device {
		if _, b := flatBacking(d); b == nil || inSnapshots(b) {
			devices = append(devices, d)
		}
	}
	l, err := s.newLease(c.vm, devices, false)
	if err != nil {
		body.Fault_ = simulator.Fault(err.Error(), fileFault(c.vm.Name, err))
		return body
	}
	body.Res = &types.ExportSnapshotResponse{Returnval: l.Self}
	return body
}

func (s *site) importVApp(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.ImportVApp)
	body := new(methods.ImportVAppBody)
	fail := func(msg string, fault types.BaseMethodFault) soap.HasFault {
		body.Fault_ = simulator.Fault(msg, fault)
		return body
	}
	spec, ok := req.Spec.(*types.VirtualMachineImportSpec)
	if !ok {
		return fail("A specified parameter was not correct: spec", &types.InvalidArgument{InvalidProperty: "spec"})
	}
	folder := vmFolder()
	if req.Folder != nil {
		folder, _ = simulator.Map.Get(*req.Folder).(*simulator.Folder)
	}
	if folder == nil {
		return fail("A specified parameter was not correct: folder", &types.InvalidArgument{InvalidProperty: "folder"})
	}
	vm, fault := s.create(ctx, folder, &types.CreateVM_Task{This: folder.Self, Config: spec.ConfigSpec, Pool: req.This, Host: req.Host})
	if fault != nil {
		return fail(kindOf(fault), fault)
	}
	l, err := s.newLease(vm, vm.Config.Hardware.Device, true)
	if err != nil {
		return fail(err.Error(), fileFault(vm.Name, err))
	}
	body.Res = &types.ImportVAppResponse{Returnval: l.Self}
	return body
}
