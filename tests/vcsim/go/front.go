package main

import (
	"io"
	"net/http"
	"os"
	"path"
	"strings"
	"time"
)

// sdk is the path of SOAP.
const sdk = "/sdk"

// ServeHTTP is the front: all that a client can ask, except for the control API.
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	if p == sdk || p == sdk+"/" || strings.HasPrefix(p, sdk+"/vimService") && r.Method == http.MethodPost {
		r.URL.Path = strings.TrimSuffix(p, "/")
		s.serveSDK(w, r)
		return
	}
	name := r.Method + " /" + strings.SplitN(strings.TrimPrefix(p, "/"), "/", 2)[0]
	passage, ok := s.gate.enter(name, p)
	defer s.gate.leave(passage)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	told := &delayed{ResponseWriter: w, after: func(status int) { s.gate.done(passage, status) }, stream: r.Method == http.MethodGet}
	s.serveBroken(told, r)
	told.finish()
}

// delayed tells a client of success only when the gate lets it; a stream's end stands for that.
type delayed struct {
	http.ResponseWriter
	after  func(int)
	stream bool
	status int
}

func (d *delayed) WriteHeader(status int) {
	if d.status = status; !d.stream {
		d.after(status)
	}
	d.ResponseWriter.WriteHeader(status)
}

func (d *delayed) Write(p []byte) (int, error) {
	if d.status == 0 {
		d.WriteHeader(http.StatusOK)
	}
	return d.ResponseWriter.Write(p)
}

func (d *delayed) Flush() {
	if f, ok := d.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
}

func (d *delayed) finish() {
	if d.stream {
		d.Flush()
		d.after(d.status)
	} else if d.status == 0 {
		d.WriteHeader(http.StatusOK)
	}
}

// serveBroken serves, with the fault that is due.
func (s *site) serveBroken(w http.ResponseWriter, r *http.Request) {
	f := s.dueHTTP(r.URL.Path, r.Method)
	if f == nil {
		s.servePath(w, r, 0)
		return
	}
	if f.Status != 0 {
		w.WriteHeader(f.Status)
		return
	}
	if f.NoRange {
		r.Header.Del("Range")
	}
	if f.CutUpload != nil {
		r.Body = &brokenReader{r.Body, *f.CutUpload}
	}
	s.servePath(&brokenWriter{ResponseWriter: w, httpRule: f, gone: r.Context().Done()}, r, f.Capacity)
}

func (s *site) servePath(w http.ResponseWriter, r *http.Request, capacity int64) {
	switch p := r.URL.Path; {
	case strings.HasPrefix(p, "/folder/"):
		s.serveFolder(w, r)
	case strings.HasPrefix(p, "/nfc/"):
		s.serveNFC(w, r, capacity)
	case strings.HasPrefix(p, "/rest/"):
		s.serveREST(w, r)
	default:
		s.mux.ServeHTTP(w, r)
	}
}

// authenticated says whether a request comes within a session or with the password.
func (s *site) authenticated(r *http.Request) bool {
	if user, pass, has := r.BasicAuth(); has && user == s.user && pass == s.pass {
		return true
	}
	return s.counts.session(cookie(r)) != ""
}

// serveFolder is the access to the files of datastores.
func (s *site) serveFolder(w http.ResponseWriter, r *http.Request) {
	if !s.authenticated(r) {
		w.Header().Set("WWW-Authenticate", `Basic realm="VMware HTTP server"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	q := r.URL.Query()
	name := "[" + q.Get("dsName") + "] " + strings.TrimPrefix(path.Clean(r.URL.Path), "/folder/")
	file, err := local(name)
	if dc := q.Get("dcPath"); err != nil || dc != "" && !datacenterExists(dc) {
		http.NotFound(w, r)
		return
	}
	need := "Datastore.FileManagement"
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		need = "Datastore.Browse"
	}
	if ds := datastoreNamed(q.Get("dsName")); !s.rights.may(need, ds.Self.Value) {
		w.WriteHeader(http.StatusForbidden)
		return
	}
	s.world.Lock()
	vm, _ := userOf(name)
	locked := heldBy(name) != nil && strings.HasSuffix(name, "-flat.vmdk")
	s.world.Unlock()
	switch {
	case strings.HasSuffix(name, ".vmdk") && isObjectStore(q.Get("dsName")) && strings.HasSuffix(name, "-flat.vmdk"):
		http.NotFound(w, r) // disks are objects there, not files
	case locked:
		http.Error(w, "Failed to lock the file", http.StatusInternalServerError)
	case need == "Datastore.Browse":
		if r.Method == http.MethodGet && strings.HasSuffix(name, "-flat.vmdk") {
			defer s.counts.begin(vm, q.Get("dsName"), "datastore")()
		}
		sendFile(w, r, file)
	default:
		s.changeFile(w, r, file)
	}
}

func sendFile(w http.ResponseWriter, r *http.Request, file string) {
	f, err := os.Open(file)
	if err != nil {
		http.NotFound(w, r)
		return
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.IsDir() {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", time.Time{}, f)
}

func (s *site) changeFile(w http.ResponseWriter, r *http.Request, file string) {
	switch r.Method {
	case http.MethodPut, http.MethodPost:
		f, err := os.Create(file)
		if err != nil { // also when its directory is not there
			http.NotFound(w, r)
			return
		}
		defer f.Close()
		n, err := io.Copy(f, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		s.counts.uploaded(upload{Target: path.Base(file), Bytes: n, Chunked: r.ContentLength < 0})
		w.WriteHeader(http.StatusCreated)
	case http.MethodDelete:
		if err := os.Remove(file); err != nil {
			http.NotFound(w, r)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

func (c *counts) uploaded(u upload) {
	c.mu.Lock()
	c.uploads = append(c.uploads, u)
	c.mu.Unlock()
}

// serveREST is the package's REST API (tags), with its sessions counted.
func (s *site) serveREST(w http.ResponseWriter, r *http.Request) {
	session := r.Header.Get("vmware-api-session-id")
	isSession := strings.TrimSuffix(r.URL.Path, "/") == "/rest/com/vmware/cis/session"
	if !isSession && session != "" && !s.counts.restSession(session) {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if !isSession || r.URL.Query().Get("~action") != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	answer := &keeping{ResponseWriter: w}
	s.mux.ServeHTTP(answer, r)
	s.counts.restChange(r.Method, session, answer.body)
}
