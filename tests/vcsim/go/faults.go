package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"regexp"
	"strings"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// faults are those that tests have ordered.
type faults struct {
	mu   sync.Mutex
	soap []*faultRule
	http []*httpRule
}

// faultRule makes calls of a SOAP method fail, without doing anything.
type faultRule struct {
	Method   string          `json:"method"`
	Fault    string          `json:"fault"` // a type of vim25
	Msg      string          `json:"msg"`
	Detail   json.RawMessage `json:"detail"` // its properties
	Skip     int             `json:"skip"`   // so many calls go well before
	Times    int             `json:"times"`
	VM       string          `json:"vm"`       // only for this machine
	Quiesced *bool           `json:"quiesced"` // only for snapshots that are (not) to be quiesced
	Call     bool            `json:"call"`     // the call fails, also that of a task
}

var reQuiesced = regexp.MustCompile(`<quiesceSpec\b|<quiesce\b[^>]*>(true|1)<`)

func (c *call) quiesced() bool { return reQuiesced.Match(c.raw) }

func (s *site) dueFault(c *call) *faultRule {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	for _, f := range s.faults.soap {
		if f.Method != c.method || f.Times <= 0 || f.Quiesced != nil && *f.Quiesced != c.quiesced() {
			continue
		}
		if f.VM != "" && (c.vm == nil || c.vm.Name != f.VM && c.vm.Self.Value != f.VM) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		f.Times--
		return f
	}
	return nil
}

// injected answers with the ordered fault, if one is due.
func (s *site) injected(w http.ResponseWriter, c *call) bool {
	f := s.dueFault(c)
	if f == nil {
		return false
	}
	fault, err := newFault(f.Fault, f.Detail)
	if err != nil {
		fault = &types.RuntimeFault{}
		f.Msg = err.Error()
	}
	object := c.this
	if c.vm != nil {
		object = c.vm.Self
	}
	fillReferences(reflect.ValueOf(fault).Elem(), object)
	s.fail(w, c, fault, f.Msg, f.Call)
	return true
}

// fillReferences sets those that must be there and are not: clients cannot decode them.
func fillReferences(v reflect.Value, object types.ManagedObjectReference) {
	for i := 0; i < v.NumField(); i++ {
		field := v.Field(i)
		if ref, ok := field.Addr().Interface().(*types.ManagedObjectReference); ok {
			if *ref == (types.ManagedObjectReference{}) {
				*ref = object
				if v.Type().Field(i).Name == "Task" {
					*ref = types.ManagedObjectReference{Type: "Task", Value: "task-0"}
				}
			}
		} else if field.Kind() == reflect.Struct && v.Type().Field(i).Anonymous {
			fillReferences(field, object)
		}
	}
}

// fail answers with a fault: that of the task, if the method is one with a task.
func (s *site) fail(w http.ResponseWriter, c *call, fault types.BaseMethodFault, msg string, atOnce bool) {
	if msg == "" {
		msg = kindOf(fault)
	}
	name := strings.TrimSuffix(c.method, "_Task")
	if name == c.method || atOnce {
		reply(w, c.method, nil, simulator.Fault(msg, fault))
		return
	}
	entity := c.this
	if c.vm != nil {
		entity = c.vm.Self
	}
	ref := failedTask(entity, name, fault, msg)
	reply(w, c.method, &struct {
		Returnval types.ManagedObjectReference `xml:"returnval"`
	}{ref}, nil)
}

// kindOf is a fault's name in the API.
func kindOf(fault types.BaseMethodFault) string { return reflect.TypeOf(fault).Elem().Name() }

// newFault makes a fault of vim25 by its name, with properties as in its JSON form.
func newFault(kind string, detail json.RawMessage) (types.BaseMethodFault, error) {
	t, ok := types.TypeFunc()(kind)
	if !ok {
		return nil, fmt.Errorf("no fault %q", kind)
	}
	f, ok := reflect.New(t).Interface().(types.BaseMethodFault)
	if !ok {
		return nil, fmt.Errorf("%q is not a fault", kind)
	}
	if len(detail) != 0 {
		if err := json.Unmarshal(detail, f); err != nil {
			return nil, err
		}
	}
	return f, nil
}

// httpRule breaks requests below a path; those of SOAP only when the path begins with /sdk.
type httpRule struct {
	Prefix     string            `json:"prefix"`
	Method     string            `json:"method"` // "": any; of SOAP its method
	Skip       int               `json:"skip"`
	Times      int               `json:"times"`
	Status     int               `json:"status"`      // answer with this; or
	CutAt      *int64            `json:"cut_at"`      // drop the connection after so many bytes of the answer's body; or
	CutUpload  *int64            `json:"cut_upload"`  // of the request's; or
	TruncateAt *int64            `json:"truncate_at"` // end the body there as if it were whole, without Content-Length
	StallAt    *int64            `json:"stall_at"`    // send no more, but keep the connection
	FlipAt     *int64            `json:"flip_at"`     // a wrong byte there
	NoRange    bool              `json:"no_range"`    // ignore Range
	Capacity   int64             `json:"capacity"`    // the stream says that the disk is so large
	Headers    map[string]string `json:"headers"`     // replaced in the answer
}

func (s *site) dueHTTP(path, method string) *httpRule {
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	for _, f := range s.faults.http {
		if f.Times <= 0 || !strings.HasPrefix(path, f.Prefix) || f.Method != "" && f.Method != method {
			continue
		}
		if path == sdk && !strings.HasPrefix(f.Prefix, sdk) {
			continue
		}
		if f.Skip > 0 {
			f.Skip--
			continue
		}
		f.Times--
		return f
	}
	return nil
}

// brokenWriter does to an answer what its rule says.
type brokenWriter struct {
	http.ResponseWriter
	*httpRule
	gone <-chan struct{} // closed when the client is gone
	pos  int64
}

func (b *brokenWriter) WriteHeader(status int) {
	if b.TruncateAt != nil {
		b.Header().Del("Content-Length")
	}
	for name, value := range b.Headers {
		b.Header().Set(name, value)
	}
	b.ResponseWriter.WriteHeader(status)
}

func (b *brokenWriter) Write(p []byte) (int, error) {
	size, start := len(p), b.pos
	b.pos += int64(size)
	if at := b.FlipAt; at != nil && *at >= start && *at < b.pos {
		p = append([]byte(nil), p...)
		p[*at-start] ^= 0xff
	}
	for _, at := range []*int64{b.CutAt, b.TruncateAt, b.StallAt} {
		if at != nil && *at <= b.pos {
			keep := *at - start
			if keep < 0 {
				keep = 0
			}
			if _, err := b.ResponseWriter.Write(p[:keep]); err != nil {
				return 0, err
			}
			b.end()
			return size, nil
		}
	}
	if _, err := b.ResponseWriter.Write(p); err != nil {
		return 0, err
	}
	return size, nil
}

// end is what happens after the last byte that is sent.
func (b *brokenWriter) end() {
	if b.TruncateAt != nil {
		return
	}
	if f, ok := b.ResponseWriter.(http.Flusher); ok {
		f.Flush()
	}
	if b.StallAt != nil {
		<-b.gone
	}
	panic(http.ErrAbortHandler)
}

// brokenReader drops the connection after so many bytes of an upload.
type brokenReader struct {
	body interface {
		Read([]byte) (int, error)
		Close() error
	}
	left int64
}

func (b *brokenReader) Read(p []byte) (int, error) {
	if b.left <= 0 {
		panic(http.ErrAbortHandler)
	}
	if int64(len(p)) > b.left {
		p = p[:b.left]
	}
	n, err := b.body.Read(p)
	b.left -= int64(n)
	return n, err
}

func (b *brokenReader) Close() error { return b.body.Close() }
