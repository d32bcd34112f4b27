package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
)

// keeping remembers an answer that it sends.
type keeping struct {
	http.ResponseWriter
	body []byte
}

func (k *keeping) Write(p []byte) (int, error) {
	k.body = append(k.body, p...)
	return k.ResponseWriter.Write(p)
}

func (c *counts) restSession(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rest[id]
}

// restChange notes a session that began or ended.
func (c *counts) restChange(method, id string, answer []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var made struct {
		Value string `json:"value"`
	}
	switch method {
	case http.MethodPost:
		if json.Unmarshal(answer, &made) == nil && made.Value != "" {
			c.rest[made.Value] = true
		}
	case http.MethodDelete:
		delete(c.rest, id)
	}
}

// restCall asks the package's REST API in process.
func (s *site) restCall(session, method, path string, body, out interface{}) error {
	data, _ := json.Marshal(body)
	r := httptest.NewRequest(method, path, bytes.NewReader(data))
	r.Header.Set("vmware-api-session-id", session)
	r.SetBasicAuth(s.user, s.pass)
	w := httptest.NewRecorder()
	s.mux.ServeHTTP(w, r)
	if w.Code != http.StatusOK {
		return fmt.Errorf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(w.Body.Bytes(), &struct {
		Value interface{} `json:"value"`
	}{out})
}

const tagging = "/rest/com/vmware/cis/tagging"

// tag attaches a tag to a machine, and makes it and its category when they are not there.
func (s *site) tag(vm *vm, category, name string) error {
	var session, categoryID, tagID string
	if err := s.restCall("", http.MethodPost, "/rest/com/vmware/cis/session", nil, &session); err != nil {
		return err
	}
	defer func() { _ = s.restCall(session, http.MethodDelete, "/rest/com/vmware/cis/session", nil, nil) }()
	spec := dict{"create_spec": dict{"name": category, "description": "", "cardinality": "MULTIPLE", "associable_types": []string{"VirtualMachine"}}}
	if err := s.restNamed(session, tagging+"/category", category, spec, &categoryID, ""); err != nil {
		return err
	}
	spec = dict{"create_spec": dict{"name": name, "description": "", "category_id": categoryID}}
	if err := s.restNamed(session, tagging+"/tag", name, spec, &tagID, categoryID); err != nil {
		return err
	}
	return s.restCall(session, http.MethodPost, tagging+"/tag-association/id:"+tagID+"?~action=attach",
		dict{"object_id": dict{"id": vm.Self.Value, "type": "VirtualMachine"}}, nil)
}

// restNamed finds the object with a name, or makes it.
func (s *site) restNamed(session, path, name string, spec interface{}, id *string, category string) error {
	var all []string
	if err := s.restCall(session, http.MethodGet, path, nil, &all); err != nil {
		return err
	}
	for _, one := range all {
		var o struct {
			Name     string `json:"name"`
			Category string `json:"category_id"`
		}
		if err := s.restCall(session, http.MethodGet, path+"/id:"+one, nil, &o); err != nil {
			return err
		}
		if o.Name == name && o.Category == category {
			*id = one
			return nil
		}
	}
	return s.restCall(session, http.MethodPost, path, spec, id)
}
