// Command vcsim is a vCenter (or a stand-alone ESXi host) for tests of backups.
//
// It is VMware's own simulator, the Go package simulator of Debian's
// golang-github-vmware-govmomi-dev, unpatched, plus what a backup needs and that
// package lacks: bytes on disks, layers of snapshots, changed-block tracking,
// leases that carry streamOptimized VMDKs, an authenticated /folder, faults.
//
// A front server reads each SOAP request.  The methods of the table own are
// decoded, run and answered here; the package does all others.
package main

import (
	"encoding/json"
	"flag"
	"log"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"

	_ "github.com/vmware/govmomi/vapi/simulator"
)

// site is the simulated vCenter.
type site struct {
	// world is held by whoever reads or changes the inventory: one call at a time.
	world sync.Mutex

	mux      http.Handler // the package's own handlers
	internal *simulator.Session
	user     string
	pass     string
	dir      string // scratch: frozen disks, uploads
	qemuImg  string
	thumb    string // SHA-1 of the certificate, aa:bb:...

	gate     gate
	counts   counts
	faults   faults
	rights   rights
	tracking tracking
	leases   leases
	tasks    tasks
	shots    shots
}

func main() {
	listen := flag.String("l", "127.0.0.1:0", "where to listen (https)")
	user := flag.String("user", "user", "user name")
	pass := flag.String("pass", "pass", "password")
	esx := flag.Bool("esx", false, "be a stand-alone ESXi host")
	vms := flag.Int("vm", 2, "machines per resource pool")
	ds := flag.Int("ds", 1, "datastores")
	hosts := flag.Int("hosts", 3, "hosts of the cluster")
	maxAreas := flag.Int("max-areas", 8, "changed areas in an answer of QueryChangedDiskAreas")
	ttl := flag.Duration("lease-timeout", 300*time.Second, "how long a lease lives without progress")
	trace := flag.Bool("trace", false, "write all SOAP to stderr")
	qemuImg := flag.String("qemu-img", "qemu-img", "the program that checks uploads")
	dir := flag.String("state", "", "an empty directory for everything that is kept in files")
	readyFile := flag.String("ready", "", "where to write, as JSON, how to reach the simulator")
	flag.Parse()

	// The package makes its datastores in the directory for temporary files.
	check(os.Setenv("TMPDIR", *dir))
	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	} else {
		model.ClusterHost = *hosts
	}
	model.Machine, model.Datastore = *vms, *ds
	simulator.Trace = *trace
	check(model.Create())
	model.Service.RegisterEndpoints = true
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword(*user, *pass)}
	inner := model.Service.NewServer() // its port is not told to anybody
	defer inner.Close()

	s := &site{
		mux: model.Service.ServeMux, user: *user, pass: *pass, dir: *dir, qemuImg: *qemuImg,
		internal: &simulator.Session{
			UserSession: types.UserSession{Key: uuid.New().String(), UserName: *user},
			Registry:    simulator.NewRegistry(),
		},
	}
	s.gate.init()
	s.counts.init()
	s.rights.denied = map[string]map[string]bool{}
	s.tracking = tracking{disks: map[string]*history{}, waiting: map[string]bool{}, maxAreas: *maxAreas}
	s.leases = leases{all: map[string]*lease{}, ttl: *ttl}
	s.tasks.held = map[string]chan struct{}{}
	s.shots = shots{files: map[types.ManagedObjectReference]shotFiles{}, left: map[string][]*simulator.VirtualMachineSnapshot{},
		memory: map[string][]byte{}}
	s.furnish()

	cert := newCertificate(filepath.Join(*dir, "ca.pem"))
	s.thumb = thumbprint(cert)
	public, err := net.Listen("tcp", *listen)
	check(err)
	control, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	server := &http.Server{Handler: s, TLSConfig: serverTLS(cert), ErrorLog: log.Default()}
	go func() { log.Fatal(server.ServeTLS(public, "", "")) }()
	go func() { log.Fatal(http.Serve(control, http.HandlerFunc(s.serveControl))) }()

	told, _ := json.Marshal(map[string]interface{}{
		"port": port(public), "control": port(control), "ca": filepath.Join(*dir, "ca.pem"),
	})
	check(os.WriteFile(*readyFile, told, 0600))

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGINT, syscall.SIGTERM)
	<-stop
}

func port(l net.Listener) int { return l.Addr().(*net.TCPAddr).Port }

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
