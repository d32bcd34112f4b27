package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// order is what a test asks for; each command reads what it needs.
type order struct {
	VM          string                     `json:"vm"`
	Key         int32                      `json:"key"`
	Size        int64                      `json:"size"`
	Name        string                     `json:"name"`
	Folder      string                     `json:"folder"`
	Category    string                     `json:"category"`
	Value       string                     `json:"value"`
	Fault       string                     `json:"fault"`
	Detail      json.RawMessage            `json:"detail"`
	Times       int                        `json:"times"`
	On          bool                       `json:"on"`
	Memory      bool                       `json:"memory"`
	Description string                     `json:"description"`
	Drop        bool                       `json:"drop"`
	Method      string                     `json:"method"`
	Privilege   string                     `json:"privilege"`
	Values      map[string]json.RawMessage `json:"values"`
	Disk        *diskSpec                  `json:"disk"`
	Coarse      *int64                     `json:"coarse"`
	Late        *bool                      `json:"late"`
	Star        *string                    `json:"star"`
	DelayMS     int                        `json:"delay_ms"`
}

// serveControl is what tests ask of the simulator itself, on a port of its own, without TLS.
func (s *site) serveControl(w http.ResponseWriter, r *http.Request) {
	command := strings.TrimPrefix(r.URL.Path, "/_ctl/")
	if command == "vddk" {
		s.serveVDDK(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	var out interface{}
	if out, err = s.waiting(command, body); out == nil && err == nil {
		func() {
			s.world.Lock()
			defer s.world.Unlock()
			out, err = s.command(command, r, body)
		}()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if out == nil {
		out = dict{}
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out)
}

// waiting are the commands that must not keep others waiting.
func (s *site) waiting(command string, body []byte) (interface{}, error) {
	switch command {
	case "wait-stopped":
		return s.gate.waitHeld(), nil
	case "release":
		var o order
		err := json.Unmarshal(body, &o)
		if err == nil {
			s.gate.release(o.Drop)
		}
		return dict{}, err
	}
	return nil, nil
}

func (s *site) command(command string, r *http.Request, body []byte) (interface{}, error) {
	switch command {
	case "state":
		return s.state(), nil
	case "calls":
		return s.gate.calls(), nil
	case "call-log":
		return s.gate.entries(), nil
	case "fault":
		return nil, s.orderFault(body)
	case "httpfault":
		f := &httpRule{}
		err := json.Unmarshal(body, f)
		s.faults.mu.Lock()
		s.faults.http = append(s.faults.http, f)
		s.faults.mu.Unlock()
		return nil, err
	case "clear-faults":
		s.faults.mu.Lock()
		s.faults.soap, s.faults.http = nil, nil
		s.faults.mu.Unlock()
		return nil, nil
	case "stop-at":
		at := &stop{}
		err := json.Unmarshal(body, at)
		s.gate.mu.Lock()
		s.gate.stop = at
		s.gate.mu.Unlock()
		return nil, err
	case "guest-write":
		return nil, s.guestWrite(r, body)
	case "add-vm":
		spec := &vmSpec{}
		if err := json.Unmarshal(body, spec); err != nil {
			return nil, err
		}
		vm, err := s.addVM(spec)
		if err != nil {
			return nil, err
		}
		return dict{"id": vm.Self.Value}, nil
	case "memory":
		vm, err := machine(r.URL.Query().Get("vm"))
		if err == nil {
			s.shots.memory[vm.Self.Value] = body
		}
		return nil, err
	}
	var o order
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, err
	}
	if f := siteCommands[command]; f != nil {
		return f(s, &o)
	}
	f := machineCommands[command]
	if f == nil {
		return nil, fmt.Errorf("no command %q", command)
	}
	vm, err := machine(o.VM)
	if err != nil {
		return nil, err
	}
	return f(s, vm, &o)
}

func (s *site) orderFault(body []byte) error {
	f := &faultRule{}
	if err := json.Unmarshal(body, f); err != nil {
		return err
	}
	if _, err := newFault(f.Fault, f.Detail); err != nil {
		return err
	}
	s.faults.mu.Lock()
	s.faults.soap = append(s.faults.soap, f)
	s.faults.mu.Unlock()
	return nil
}

func (s *site) guestWrite(r *http.Request, data []byte) error {
	q := r.URL.Query()
	var key int32
	var offset int64
	if _, err := fmt.Sscan(q.Get("key"), &key); err != nil {
		return err
	}
	if _, err := fmt.Sscan(q.Get("offset"), &offset); err != nil {
		return err
	}
	vm, err := machine(q.Get("vm"))
	if err != nil {
		return err
	}
	file, err := currentFile(vm, key)
	if err != nil {
		return err
	}
	if disk, _ := diskWithKey(vm.Config.Hardware.Device, key); offset+int64(len(data)) > disk.CapacityInBytes {
		return fmt.Errorf("that is beyond the end of disk %d", disk.Key)
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(data, offset)
	return err
}

// currentFile is what the guest sees of a disk now; key 0: of the first.
func currentFile(vm *vm, key int32) (string, error) {
	if _, b := diskWithKey(vm.Config.Hardware.Device, key); b != nil {
		return local(flatName(b.FileName))
	}
	return "", fmt.Errorf("%s has no disk %d that is a file", vm.Name, key)
}

func (g *gate) calls() map[string]int {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := map[string]int{}
	for call, n := range g.counts {
		out[call] = n
	}
	return out
}

func (g *gate) entries() []passage {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := []passage{}
	for _, p := range g.log {
		out = append(out, *p)
	}
	return out
}
