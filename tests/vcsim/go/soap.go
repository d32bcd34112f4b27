package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"reflect"
	"regexp"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
	"github.com/vmware/govmomi/vim25/xml"
)

// call is one SOAP request.
type call struct {
	method string
	this   types.ManagedObjectReference
	raw    []byte
	body   interface{} // the decoded request, for the methods of own
	vm     *simulator.VirtualMachine
}

// own are the methods that are served here, by kind of object and method.
var own map[string]func(*site, *simulator.Context, *call) soap.HasFault

func init() {
	own = map[string]func(*site, *simulator.Context, *call) soap.HasFault{
		"VirtualMachine.QueryChangedDiskAreas":            (*site).queryChangedDiskAreas,
		"VirtualMachine.CreateSnapshot_Task":              (*site).createSnapshot,
		"VirtualMachine.CreateSnapshotEx_Task":            (*site).createSnapshotEx,
		"VirtualMachine.RemoveAllSnapshots_Task":          (*site).removeAllSnapshots,
		"VirtualMachine.ConsolidateVMDisks_Task":          (*site).consolidate,
		"VirtualMachine.ExportVm":                         (*site).exportVM,
		"VirtualMachine.ReconfigVM_Task":                  (*site).reconfigure,
		"VirtualMachine.Destroy_Task":                     (*site).destroyVM,
		"VirtualMachineSnapshot.RemoveSnapshot_Task":      (*site).removeSnapshot,
		"VirtualMachineSnapshot.ExportSnapshot":           (*site).exportSnapshot,
		"Folder.CreateVM_Task":                            (*site).createVM,
		"ResourcePool.ImportVApp":                         (*site).importVApp,
		"AuthorizationManager.HasPrivilegeOnEntities":     (*site).hasPrivilegeOnEntities,
		"AuthorizationManager.HasPrivilegeOnEntity":       (*site).hasPrivilegeOnEntity,
		"AuthorizationManager.HasUserPrivilegeOnEntities": (*site).hasUserPrivilegeOnEntities,
	}
}

var (
	reThis   = regexp.MustCompile(`<_this\b[^>]*?\stype="([A-Za-z:]+)"[^>]*>([^<]+)</_this>`)
	reMethod = regexp.MustCompile(`<(?:[A-Za-z0-9]+:)?Body[^>]*>\s*<(?:[A-Za-z0-9]+:)?([A-Za-z_]+)`)
)

// Methods that need no session; the package says the same of them.
const anonymous = " RetrieveServiceContent Login LoginByToken CloneSession RetrieveProperties RetrievePropertiesEx Fetch "

func parseCall(raw []byte) *call {
	c := &call{raw: raw}
	if m := reMethod.FindSubmatch(raw); m != nil {
		c.method = string(m[1])
	}
	if m := reThis.FindSubmatch(raw); m != nil {
		c.this = types.ManagedObjectReference{Type: string(m[1]), Value: string(m[2])}
	}
	return c
}

func (s *site) serveSDK(w http.ResponseWriter, r *http.Request) {
	raw, err := io.ReadAll(r.Body)
	if err != nil {
		return // the client has gone away in mid-request
	}
	c := parseCall(raw)
	p, ok := s.gate.enter(c.method, c.this.Value)
	defer s.gate.leave(p)
	if !ok {
		panic(http.ErrAbortHandler)
	}
	f := s.dueHTTP(sdk, c.method)
	if f != nil && f.Status != 0 { // nothing is done
		s.gate.done(p, f.Status)
		w.WriteHeader(f.Status)
		return
	}
	answer := s.answer(c, r)
	s.gate.done(p, answer.Code)
	if f != nil { // it is done, but the answer does not come through
		w = &brokenWriter{ResponseWriter: w, httpRule: f, gone: r.Context().Done()}
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.Header().Set("Content-Length", strconv.Itoa(answer.Body.Len()))
	w.WriteHeader(answer.Code)
	_, _ = w.Write(answer.Body.Bytes())
}

func (s *site) answer(c *call, r *http.Request) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	session := s.counts.session(cookie(r))
	if session == "" {
		// The package knows sessions which have expired here, and refuses a login within one.
		r.Header.Del("Cookie")
		if !strings.Contains(anonymous, " "+c.method+" ") {
			reply(answer, c.method, nil, simulator.Fault("The session is not authenticated.", &types.NotAuthenticated{
				NoPermission: types.NoPermission{Object: c.this, PrivilegeId: "System.View"}}))
			return answer
		}
	}
	if !strings.HasPrefix(c.method, "WaitForUpdates") { // it waits for what others do
		s.world.Lock()
		defer s.world.Unlock()
	}
	defer func() {
		if p := recover(); p != nil {
			answer = s.afterPanic(c, p)
		}
	}()
	c.vm = s.subject(c.this)
	if s.injected(answer, c) || s.refused(answer, c) {
		return answer
	}
	if serve := own[c.this.Type+"."+c.method]; serve != nil {
		s.serveOwn(answer, c, serve)
		return answer
	}
	r.Body = io.NopCloser(bytes.NewReader(c.raw))
	s.mux.ServeHTTP(answer, r)
	s.counts.sessionsOf(c.method, session, answer.Result())
	return answer
}

// afterPanic answers for a call within which the package (or we) panicked.
func (s *site) afterPanic(c *call, p interface{}) *httptest.ResponseRecorder {
	answer := httptest.NewRecorder()
	if c.method == "Fetch" { // of an unset property: a real server's answer is empty
		_, _ = answer.WriteString(head + `<soapenv:Body><FetchResponse xmlns="urn:vim25"></FetchResponse></soapenv:Body></soapenv:Envelope>`)
		return answer
	}
	log.Printf("panic in %s: %v\n%s", c.method, p, debug.Stack())
	reply(answer, c.method, nil, simulator.Fault(fmt.Sprint(p), &types.RuntimeFault{}))
	return answer
}

func (s *site) serveOwn(w http.ResponseWriter, c *call, serve func(*site, *simulator.Context, *call) soap.HasFault) {
	if simulator.Map.Get(c.this) == nil {
		reply(w, c.method, nil, simulator.Fault("The object has already been deleted or has not been completely created",
			&types.ManagedObjectNotFound{Obj: c.this}))
		return
	}
	m, err := simulator.UnmarshalBody(vimType, c.raw)
	if err != nil {
		reply(w, c.method, nil, simulator.Fault(err.Error(), &types.InvalidRequest{}))
		return
	}
	c.body = m.Body
	body := serve(s, s.context(), c)
	if f := body.Fault(); f != nil {
		reply(w, c.method, nil, f)
		return
	}
	reply(w, c.method, reflect.ValueOf(body).Elem().FieldByName("Res").Interface(), nil)
}

func (s *site) context() *simulator.Context {
	return &simulator.Context{Context: context.Background(), Session: s.internal, Map: simulator.Map}
}

// vimType is the package's rule: a type may come with any prefix for vim25.
func vimType(name string) (reflect.Type, bool) {
	return types.TypeFunc()(name[strings.LastIndex(name, ":")+1:])
}

// subject is the machine that an object is, or belongs to; nil if none.
func (s *site) subject(ref types.ManagedObjectReference) *simulator.VirtualMachine {
	switch o := simulator.Map.Get(ref).(type) {
	case *simulator.VirtualMachine:
		return o
	case *simulator.VirtualMachineSnapshot:
		return s.subject(o.Vm)
	case *lease:
		return s.subject(o.entity)
	}
	return nil
}

const head = xml.Header + `<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"` +
	` xmlns:xsd="http://www.w3.org/2001/XMLSchema" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">`

// reply writes what a method returns, or its fault.
func reply(w http.ResponseWriter, method string, res interface{}, fault *soap.Fault) {
	var out bytes.Buffer
	out.WriteString(head + "<soapenv:Body>")
	encode := func(v interface{}, name string, attrs ...xml.Attr) {
		e := xml.NewEncoder(&out)
		start := xml.StartElement{Name: xml.Name{Local: name}, Attr: append(attrs, xml.Attr{Name: xml.Name{Local: "xmlns"}, Value: "urn:vim25"})}
		if err := e.EncodeElement(v, start); err != nil {
			log.Printf("cannot encode the answer to %s: %s", method, err)
		}
		_ = e.Flush()
	}
	status := http.StatusOK
	if fault != nil {
		status = http.StatusInternalServerError
		kind := reflect.TypeOf(fault.Detail.Fault).Elem().Name()
		out.WriteString("<soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>")
		_ = xml.EscapeText(&out, []byte(fault.String))
		out.WriteString("</faultstring><detail>")
		encode(fault.Detail.Fault, kind+"Fault", xml.Attr{Name: xml.Name{Local: "xsi:type"}, Value: kind})
		out.WriteString("</detail></soapenv:Fault>")
	} else {
		encode(res, method+"Response")
	}
	out.WriteString("</soapenv:Body></soapenv:Envelope>")
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(status)
	_, _ = w.Write(out.Bytes())
}

// cookie returns the id of the session that a request claims.
func cookie(r *http.Request) string {
	if c, err := r.Cookie(soap.SessionCookieName); err == nil {
		return strings.Trim(c.Value, `"`)
	}
	return ""
}
