package main

import (
	"net/http"
	"path"
	"sort"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// counts knows what is alive now, and the most that ever was at once.
type counts struct {
	mu       sync.Mutex
	sessions map[string]bool // cookies
	rest     map[string]bool // session ids of the REST API
	reads    map[*read]bool
	uploads  []upload
	peak     peak
}

// read is a disk that is being read now.
type read struct{ vm, host, datastore, way string }

// upload is one that came to its end.
type upload struct {
	VM      string `json:"vm"`
	Target  string `json:"target"`
	Bytes   int64  `json:"bytes"`
	Chunked bool   `json:"chunked"`
}

// peak is the most at once; of hosts and datastores by name.
type peak struct {
	Sessions          int            `json:"sessions"`
	Reads             int            `json:"reads"`
	Leases            int            `json:"leases"`
	Snapshots         int            `json:"snapshots"`
	HostReads         map[string]int `json:"host_reads"`
	HostMachines      map[string]int `json:"host_machines"` // machines of which a disk is being read
	HostSnapshots     map[string]int `json:"host_snapshots"`
	DatastoreReads    map[string]int `json:"datastore_reads"`
	DatastoreMachines map[string]int `json:"datastore_machines"`
}

func newPeak() peak {
	return peak{HostReads: map[string]int{}, HostMachines: map[string]int{}, HostSnapshots: map[string]int{},
		DatastoreReads: map[string]int{}, DatastoreMachines: map[string]int{}}
}

func (c *counts) init() {
	c.sessions, c.rest, c.reads, c.peak = map[string]bool{}, map[string]bool{}, map[*read]bool{}, newPeak()
}

// session returns the id if it is that of a live session, else "".
func (c *counts) session(id string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sessions[id] {
		return id
	}
	return ""
}

// sessionsOf notes sessions that an answer begins or ends.
func (c *counts) sessionsOf(method, id string, res *http.Response) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, k := range res.Cookies() {
		if k.Name == soap.SessionCookieName {
			c.sessions[k.Value] = true
		}
	}
	if method == "Logout" {
		delete(c.sessions, id)
	}
	most(&c.peak.Sessions, len(c.sessions))
}

func most(to *int, n int) {
	if n > *to {
		*to = n
	}
}

func mostOf(to map[string]int, now map[string]int) {
	for k, n := range now {
		if n > to[k] {
			to[k] = n
		}
	}
}

// begin notes that a disk of a machine is being read; call the function that it returns at the end.
func (c *counts) begin(vm *vm, datastore, way string) func() {
	r := &read{datastore: datastore, way: way}
	if vm != nil {
		r.vm, r.host = vm.Name, hostName(vm)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reads[r] = true
	hosts, stores, machines := map[string]int{}, map[string]int{}, map[read]bool{}
	for r := range c.reads {
		hosts[r.host]++
		stores[r.datastore]++
		machines[read{vm: r.vm, host: r.host, datastore: r.datastore}] = true
	}
	onHost, onStore := map[string]int{}, map[string]int{}
	seen := map[[2]string]bool{}
	for r := range machines {
		onStore[r.datastore]++
		if !seen[[2]string{r.vm, r.host}] {
			seen[[2]string{r.vm, r.host}] = true
			onHost[r.host]++
		}
	}
	most(&c.peak.Reads, len(c.reads))
	mostOf(c.peak.HostReads, hosts)
	mostOf(c.peak.DatastoreReads, stores)
	mostOf(c.peak.HostMachines, onHost)
	mostOf(c.peak.DatastoreMachines, onStore)
	return func() {
		c.mu.Lock()
		delete(c.reads, r)
		c.mu.Unlock()
	}
}

// snapshots notes how many there are now.
func (c *counts) snapshots(s *site) {
	all, hosts := 0, map[string]int{}
	for _, vm := range machines() {
		n := len(snapshotsOf(vm))
		all += n
		if n > 0 {
			hosts[hostName(vm)]++
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	most(&c.peak.Snapshots, all)
	mostOf(c.peak.HostSnapshots, hosts)
}

func (c *counts) leases(now int) {
	c.mu.Lock()
	most(&c.peak.Leases, now)
	c.mu.Unlock()
}

// copied is safe from whoever goes on counting.
func (p peak) copied() peak {
	to := newPeak()
	for _, m := range [][2]map[string]int{{p.HostReads, to.HostReads}, {p.HostMachines, to.HostMachines},
		{p.HostSnapshots, to.HostSnapshots}, {p.DatastoreReads, to.DatastoreReads}, {p.DatastoreMachines, to.DatastoreMachines}} {
		mostOf(m[1], m[0])
	}
	to.Sessions, to.Reads, to.Leases, to.Snapshots = p.Sessions, p.Reads, p.Leases, p.Snapshots
	return to
}

func hostName(vm *vm) string {
	if vm.Runtime.Host == nil {
		return ""
	}
	if host, ok := simulator.Map.Get(*vm.Runtime.Host).(*simulator.HostSystem); ok {
		return host.Name
	}
	return ""
}

// machines are all, sorted by their ids.
func machines() (all []*vm) {
	for _, e := range simulator.Map.All("VirtualMachine") {
		if one := e.(*simulator.VirtualMachine); one.Config != nil {
			all = append(all, one)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Self.Value < all[j].Self.Value })
	return all
}

type dict = map[string]interface{}

// state is all that is alive now.
func (s *site) state() dict {
	vms, shots, needed := []dict{}, map[string][]dict{}, []string{}
	for _, vm := range machines() {
		vms = append(vms, dict{"name": vm.Name, "id": vm.Self.Value, "folder": folderOf(vm), "host": hostName(vm),
			"power": vm.Runtime.PowerState, "dir": path.Dir(vm.Config.Files.VmPathName)})
		if vm.Runtime.ConsolidationNeeded != nil && *vm.Runtime.ConsolidationNeeded {
			needed = append(needed, vm.Name)
		}
		if vm.Snapshot != nil {
			walk(vm.Snapshot.RootSnapshotList, func(n *types.VirtualMachineSnapshotTree) {
				shots[vm.Name] = append(shots[vm.Name], dict{"name": n.Name, "id": n.Snapshot.Value, "description": n.Description,
					"memory": s.shots.files[n.Snapshot].memory != "", "quiesced": n.Quiesced})
			})
		}
	}
	open := s.leases.open()
	s.tasks.mu.Lock()
	held := s.tasks.waiting
	s.tasks.mu.Unlock()
	s.counts.mu.Lock()
	defer s.counts.mu.Unlock()
	reads := []dict{}
	for r := range s.counts.reads {
		reads = append(reads, dict{"vm": r.vm, "host": r.host, "datastore": r.datastore, "way": r.way})
	}
	s.gate.mu.Lock()
	calls := len(s.gate.log)
	s.gate.mu.Unlock()
	return dict{"calls": calls, "held_tasks": held, "sessions": len(s.counts.sessions), "rest_sessions": len(s.counts.rest), "leases": open,
		"snapshots": shots, "vms": vms, "reads": reads, "uploads": append([]upload{}, s.counts.uploads...),
		"consolidation_needed": needed, "peak": s.counts.peak.copied()}
}

// folderOf is the path of a machine's folder below that of all machines.
func folderOf(vm *vm) string {
	var names []string
	for at := vm.Parent; at != nil; {
		f, ok := simulator.Map.Get(*at).(*simulator.Folder)
		if !ok || f.Parent == nil || f.Parent.Type == "Datacenter" {
			break
		}
		names = append([]string{f.Name}, names...)
		at = f.Parent
	}
	return strings.Join(names, "/")
}
