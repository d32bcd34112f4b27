package main

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// serveVDDK lets our stand-in for nbdkit's plugin open a disk: it answers with the path of the disk's image, or with
// 4xx and a reason, and then keeps the connection until the plugin closes the disk.
func (s *site) serveVDDK(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	q, err := url.ParseQuery(string(body))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p, ok := s.gate.enter("VDDK", q.Get("file"))
	defer s.gate.leave(p)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	if f := s.dueHTTP("/vddk", http.MethodPost); f != nil {
		http.Error(w, "VixDiskLib_Open: Unknown error", http.StatusServiceUnavailable)
		return
	}
	s.world.Lock()
	vm, file, err := s.openVDDK(q)
	s.world.Unlock()
	if err != nil {
		s.gate.done(p, http.StatusForbidden)
		http.Error(w, err.Error(), http.StatusForbidden)
		return
	}
	defer s.counts.begin(vm, datastoreOf(q.Get("file")), "vddk")()
	s.gate.done(p, http.StatusOK)
	_, _ = fmt.Fprintln(w, file)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

func (s *site) openVDDK(q url.Values) (*vm, string, error) {
	if q.Get("user") != s.user || q.Get("password") != s.pass {
		return nil, "", fmt.Errorf("VixDiskLib_ConnectEx: Cannot complete login due to an incorrect user name or password")
	}
	if !strings.EqualFold(q.Get("thumbprint"), s.thumb) {
		return nil, "", fmt.Errorf("VixDiskLib_ConnectEx: SSL certificate thumbprint does not match")
	}
	id := strings.TrimPrefix(q.Get("vm"), "moref=")
	vm, ok := simulator.Map.Get(types.ManagedObjectReference{Type: "VirtualMachine", Value: id}).(*simulator.VirtualMachine)
	if !ok {
		return nil, "", fmt.Errorf("VixDiskLib_ConnectEx: The requested object was not found: %s", q.Get("vm"))
	}
	name, need := q.Get("file"), "VirtualMachine.Provisioning.DiskRandomRead"
	devices := vm.Config.Hardware.Device
	if snap := q.Get("snapshot"); snap != "" {
		one, ok := simulator.Map.Get(types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: snap}).(*shot)
		if !ok || one.Vm != vm.Self {
			return nil, "", fmt.Errorf("VixDiskLib_ConnectEx: The snapshot %s was not found", snap)
		}
		devices = one.Config.Hardware.Device
	}
	if q.Get("readonly") != "true" {
		need = "VirtualMachine.Provisioning.DiskRandomAccess"
	}
	if !s.rights.may(need, vm.Self.Value) {
		return nil, "", fmt.Errorf("VixDiskLib_Open: You do not have access rights to this file (%s)", need)
	}
	if heldBy(name) != nil {
		return nil, "", fmt.Errorf("VixDiskLib_Open: Failed to lock the file")
	}
	if !named(devices, name) {
		return nil, "", fmt.Errorf("VixDiskLib_Open: The file %s was not found", name)
	}
	file, err := local(flatName(name))
	return vm, file, err
}
