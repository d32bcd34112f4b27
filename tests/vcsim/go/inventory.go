package main

import (
	"encoding/json"
	"fmt"
	"path"
	"reflect"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// furnish completes what the package has made.
func (s *site) furnish() {
	for _, e := range simulator.Map.All("Datastore") {
		ds := e.(*simulator.Datastore)
		ds.Summary.Type = "VMFS"
	}
	for _, vm := range machines() {
		if fault := s.settle(vm); fault != nil {
			check(fmt.Errorf("%s: %s", vm.Name, kindOf(fault)))
		}
	}
}

// machine finds one by its id, by its folder and name (a/b/name), or by its name when there is one of that name.
func machine(name string) (found *vm, err error) {
	for _, vm := range machines() {
		full := path.Join(folderOf(vm), vm.Name)
		if vm.Self.Value == name || strings.Contains(name, "/") && full == name {
			return vm, nil
		}
		if vm.Name == name {
			if found != nil {
				return nil, fmt.Errorf("%q is the name of more than one machine: say its id, or folder/name", name)
			}
			found = vm
		}
	}
	if found == nil {
		return nil, fmt.Errorf("no machine %q", name)
	}
	return found, nil
}

func datacenterExists(inventoryPath string) bool {
	for _, e := range simulator.Map.All("Datacenter") {
		name := ""
		for at := e; at != nil && at.Entity().Parent != nil; {
			name = path.Join(at.Entity().Name, name)
			at, _ = simulator.Map.Get(*at.Entity().Parent).(mo.Entity)
		}
		if name == strings.Trim(inventoryPath, "/") {
			return true
		}
	}
	return false
}

func isObjectStore(datastore string) bool {
	ds := datastoreNamed(datastore)
	return ds != nil && (ds.Summary.Type == "vsan" || strings.EqualFold(ds.Summary.Type, "VVOL"))
}

// vmFolder is the folder of all machines of the first datacenter.
func vmFolder() *simulator.Folder {
	dc := simulator.Map.Any("Datacenter").(*simulator.Datacenter)
	return simulator.Map.Get(dc.VmFolder).(*simulator.Folder)
}

// folderAt returns the folder with a path below that of all machines, and makes it when it is not there.
func (s *site) folderAt(at string) (*simulator.Folder, error) {
	folder := vmFolder()
	for _, name := range strings.Split(strings.Trim(at, "/"), "/") {
		if name == "" {
			continue
		}
		if f, ok := simulator.Map.FindByName(name, folder.ChildEntity).(*simulator.Folder); ok {
			folder = f
			continue
		}
		body := folder.CreateFolder(s.context(), &types.CreateFolder{This: folder.Self, Name: name}).(*methods.CreateFolderBody)
		if body.Fault_ != nil {
			return nil, fmt.Errorf("folder %s: %s", at, body.Fault_.String)
		}
		folder = simulator.Map.Get(body.Res.Returnval).(*simulator.Folder)
	}
	return folder, nil
}

func hostNamed(name string) (*simulator.HostSystem, error) {
	var first *simulator.HostSystem
	for _, e := range simulator.Map.All("HostSystem") {
		host := e.(*simulator.HostSystem)
		if host.Name == name {
			return host, nil
		}
		if first == nil || host.Name < first.Name {
			first = host
		}
	}
	if name != "" {
		return nil, fmt.Errorf("no host %q", name)
	}
	return first, nil
}

func poolOf(host *simulator.HostSystem) types.ManagedObjectReference {
	switch c := simulator.Map.Get(*host.Parent).(type) {
	case *simulator.ClusterComputeResource:
		return *c.ResourcePool
	case *mo.ComputeResource:
		return *c.ResourcePool
	}
	return simulator.Map.Any("ResourcePool").Reference()
}

// setProperty sets a property of any object by its path, from its JSON form, and its twin in the summary.
func setProperty(o mo.Reference, at string, value json.RawMessage) error {
	for _, name := range []string{at, "summary." + at} {
		field, err := fieldAt(reflect.ValueOf(o).Elem(), name)
		if err != nil {
			if name == at {
				return err
			}
			continue
		}
		fresh := reflect.New(field.Type())
		if err := json.Unmarshal(value, fresh.Interface()); err != nil {
			return err
		}
		simulator.Map.Update(o, []types.PropertyChange{{Name: name, Val: fresh.Elem().Interface()}})
		field.Set(fresh.Elem())
	}
	return nil
}

func fieldAt(v reflect.Value, at string) (reflect.Value, error) {
	for _, name := range strings.Split(at, ".") {
		for v.Kind() == reflect.Ptr {
			if v.IsNil() {
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		if v.Kind() == reflect.Struct {
			v = v.FieldByName(strings.ToUpper(name[:1]) + name[1:])
		} else {
			v = reflect.Value{}
		}
		if !v.IsValid() {
			return v, fmt.Errorf("no property %s", at)
		}
	}
	return v, nil
}
