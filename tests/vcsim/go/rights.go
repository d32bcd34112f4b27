package main

import (
	"net/http"
	"regexp"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// rights are what the user may not do.
type rights struct {
	mu      sync.Mutex
	denied  map[string]map[string]bool // privilege -> ids of objects, "" for all
	enforce bool
}

// needed says which privileges a method needs, where that does not depend on what it is asked.
var needed = map[string][]string{
	"CreateSnapshot_Task":     {"VirtualMachine.State.CreateSnapshot"},
	"CreateSnapshotEx_Task":   {"VirtualMachine.State.CreateSnapshot"},
	"RemoveSnapshot_Task":     {"VirtualMachine.State.RemoveSnapshot"},
	"RemoveAllSnapshots_Task": {"VirtualMachine.State.RemoveSnapshot"},
	"ConsolidateVMDisks_Task": {"VirtualMachine.State.RemoveSnapshot"},
	"QueryChangedDiskAreas":   {"VirtualMachine.Provisioning.DiskRandomRead"},
	"ExportVm":                {"VApp.Export"},
	"ExportSnapshot":          {"VApp.Export"},
	"ImportVApp":              {"VApp.Import", "VirtualMachine.Inventory.Create", "VirtualMachine.Config.AddNewDisk", "Datastore.AllocateSpace", "Network.Assign", "Resource.AssignVMToPool"},
	"CreateVM_Task":           {"VirtualMachine.Inventory.Create", "Resource.AssignVMToPool"},
	"Destroy_Task":            {"VirtualMachine.Inventory.Delete"},
	"Rename_Task":             {"VirtualMachine.Config.Rename"},
	"PowerOnVM_Task":          {"VirtualMachine.Interact.PowerOn"},
	"PowerOffVM_Task":         {"VirtualMachine.Interact.PowerOff"},
	"MarkAsTemplate":          {"VirtualMachine.Provisioning.MarkAsTemplate"},
}

// reconfigured says which privileges a reconfiguration needs, by what its request has in it.
var reconfigured = []struct {
	mark      *regexp.Regexp
	privilege string
}{
	{regexp.MustCompile(`<changeTrackingEnabled\b`), "VirtualMachine.Config.ChangeTracking"},
	{regexp.MustCompile(`<fileOperation\b[^>]*>create<`), "VirtualMachine.Config.AddNewDisk"},
	{regexp.MustCompile(`<operation\b[^>]*>remove<`), "VirtualMachine.Config.RemoveDisk"},
	{regexp.MustCompile(`<operation\b[^>]*>add<`), "VirtualMachine.Config.AddExistingDisk"},
	{regexp.MustCompile(`<operation\b[^>]*>edit<`), "VirtualMachine.Config.EditDevice"},
	{regexp.MustCompile(`<extraConfig\b`), "VirtualMachine.Config.AdvancedConfig"},
	{regexp.MustCompile(`<spec\b[^>]*>(<changeVersion\b[^>]*>[^<]*</changeVersion>)?<name\b`), "VirtualMachine.Config.Rename"},
	{regexp.MustCompile(`<annotation\b`), "VirtualMachine.Config.Annotation"},
	{regexp.MustCompile(`<memoryMB\b`), "VirtualMachine.Config.Memory"},
	{regexp.MustCompile(`<numCPUs\b`), "VirtualMachine.Config.CPUCount"},
}

func (r *rights) deny(privilege, object string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.denied[privilege] == nil {
		r.denied[privilege] = map[string]bool{}
	}
	r.denied[privilege][object] = true
}

// has says whether the user has a privilege on an object, which may be given by more than one id.
func (r *rights) has(privilege string, ids ...string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	on := r.denied[privilege]
	for _, id := range append(ids, "") {
		if on[id] {
			return false
		}
	}
	return true
}

// may is has, for what is done; it always says yes unless privileges are enforced.
func (r *rights) may(privilege string, ids ...string) bool {
	r.mu.Lock()
	enforce := r.enforce
	r.mu.Unlock()
	return !enforce || r.has(privilege, ids...)
}

// refused answers calls that the user may not make, or that a host which is away cannot do.
func (s *site) refused(w http.ResponseWriter, c *call) bool {
	want := needed[c.method]
	if c.method == "ReconfigVM_Task" {
		for _, r := range reconfigured {
			if r.mark.Match(c.raw) {
				want = append(want, r.privilege)
			}
		}
	}
	object := c.this
	if c.vm != nil {
		object = c.vm.Self
	}
	for _, privilege := range want {
		if !s.rights.may(privilege, object.Value) {
			reply(w, c.method, nil, simulator.Fault("Permission to perform this operation was denied.",
				&types.NoPermission{Object: object, PrivilegeId: privilege}))
			return true
		}
	}
	if len(want) > 0 && c.vm != nil && !hostConnected(c.vm) {
		s.fail(w, c, &types.HostNotConnected{}, "Unable to communicate with the remote host, since it is disconnected.", false)
		return true
	}
	return false
}

func hostConnected(vm *vm) bool {
	if vm.Runtime.Host == nil {
		return true
	}
	host, ok := simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem)
	return !ok || host.Runtime.ConnectionState == types.HostSystemConnectionStateConnected
}

func (s *site) availability(entities []types.ManagedObjectReference, privileges []string) (out []types.EntityPrivilege) {
	for _, e := range entities {
		one := types.EntityPrivilege{Entity: e}
		for _, id := range privileges {
			one.PrivAvailability = append(one.PrivAvailability, types.PrivilegeAvailability{PrivId: id, IsGranted: s.rights.has(id, e.Value)})
		}
		out = append(out, one)
	}
	return out
}

func (s *site) hasPrivilegeOnEntities(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.HasPrivilegeOnEntities)
	return &methods.HasPrivilegeOnEntitiesBody{Res: &types.HasPrivilegeOnEntitiesResponse{Returnval: s.availability(req.Entity, req.PrivId)}}
}

func (s *site) hasUserPrivilegeOnEntities(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.HasUserPrivilegeOnEntities)
	return &methods.HasUserPrivilegeOnEntitiesBody{Res: &types.HasUserPrivilegeOnEntitiesResponse{Returnval: s.availability(req.Entities, req.PrivId)}}
}

func (s *site) hasPrivilegeOnEntity(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.HasPrivilegeOnEntity)
	res := &types.HasPrivilegeOnEntityResponse{}
	for _, id := range req.PrivId {
		res.Returnval = append(res.Returnval, s.rights.has(id, req.Entity.Value))
	}
	return &methods.HasPrivilegeOnEntityBody{Res: res}
}
