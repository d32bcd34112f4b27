package main

import (
	"encoding/json"
	"fmt"
	"time"
)

// siteCommands are those that are not about one machine.
var siteCommands = map[string]func(*site, *order) (interface{}, error){
	"expire-sessions": func(s *site, o *order) (interface{}, error) {
		s.counts.mu.Lock()
		s.counts.sessions, s.counts.rest = map[string]bool{}, map[string]bool{}
		s.counts.mu.Unlock()
		return nil, nil
	},
	"hold-task": func(s *site, o *order) (interface{}, error) {
		s.tasks.hold(o.Method)
		return nil, nil
	},
	"release-tasks": func(s *site, o *order) (interface{}, error) {
		s.tasks.release()
		return nil, nil
	},
	"deny": func(s *site, o *order) (interface{}, error) {
		s.rights.deny(o.Privilege, o.Value)
		return nil, nil
	},
	"enforce": func(s *site, o *order) (interface{}, error) {
		s.rights.mu.Lock()
		s.rights.enforce = o.On
		s.rights.mu.Unlock()
		return nil, nil
	},
	"tracking": func(s *site, o *order) (interface{}, error) {
		if o.Coarse != nil {
			s.tracking.coarse = *o.Coarse
		}
		if o.Late != nil {
			s.tracking.late = *o.Late
		}
		if o.Star != nil {
			s.tracking.star = *o.Star
		}
		return nil, nil
	},
	"leases": func(s *site, o *order) (out interface{}, err error) {
		s.leases.mu.Lock()
		defer s.leases.mu.Unlock()
		s.leases.delay = time.Duration(o.DelayMS) * time.Millisecond
		if o.Fault != "" {
			s.leases.fail, err = newFault(o.Fault, o.Detail)
		}
		return nil, err
	},
	"lose-consolidation": func(s *site, o *order) (out interface{}, err error) {
		s.shots.broken, s.shots.refuse = o.Times, nil
		if o.Fault != "" {
			s.shots.refuse, err = newFault(o.Fault, o.Detail)
		}
		return nil, err
	},
	"host": func(s *site, o *order) (interface{}, error) {
		host, err := hostNamed(o.Name)
		if err != nil {
			return nil, err
		}
		state, _ := json.Marshal(o.Value)
		for _, vm := range machines() {
			if vm.Runtime.Host != nil && *vm.Runtime.Host == host.Self {
				if err := setProperty(vm, "runtime.connectionState", state); err != nil {
					return nil, err
				}
			}
		}
		return nil, setProperty(host, "runtime.connectionState", state)
	},
	"datastore": func(s *site, o *order) (interface{}, error) {
		ds := datastoreNamed(o.Name)
		if ds == nil {
			return nil, fmt.Errorf("no datastore %q", o.Name)
		}
		for at, value := range o.Values {
			if err := setProperty(ds, at, value); err != nil {
				return nil, err
			}
		}
		return nil, nil
	},
	"file": func(s *site, o *order) (interface{}, error) {
		file, err := local(o.Name)
		return dict{"path": file}, err
	},
}
