package main

import (
	"log"
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// tasks can be held: they are then "running" until a test lets them go on.
type tasks struct {
	mu      sync.Mutex
	held    map[string]chan struct{} // by SOAP method
	waiting int                      // tasks that wait now
}

type work = func() (types.AnyType, types.BaseMethodFault)

// run makes the task of a method. It is over when its method returns, unless it is held.
func (s *site) run(vm types.ManagedObjectReference, method, name string, f work) types.ManagedObjectReference {
	task := simulator.CreateTask(reference{vm}, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return f()
	})
	s.tasks.mu.Lock()
	held := s.tasks.held[method]
	if held != nil {
		s.tasks.waiting++
	}
	s.tasks.mu.Unlock()
	if held == nil {
		return task.Run()
	}
	simulator.Map.Update(task, []types.PropertyChange{{Name: "info.state", Val: types.TaskInfoStateRunning}})
	go func() {
		<-held
		s.world.Lock()
		defer s.world.Unlock()
		task.Run()
		s.tasks.mu.Lock()
		s.tasks.waiting--
		s.tasks.mu.Unlock()
	}()
	return task.Self
}

func (t *tasks) hold(method string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.held[method] == nil {
		t.held[method] = make(chan struct{})
	}
}

func (t *tasks) release() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for method, held := range t.held {
		close(held)
		delete(t.held, method)
	}
}

// reference is anything that has one.
type reference struct{ ref types.ManagedObjectReference }

func (r reference) Reference() types.ManagedObjectReference { return r.ref }

func failedTask(entity types.ManagedObjectReference, name string, fault types.BaseMethodFault, msg string) types.ManagedObjectReference {
	task := simulator.CreateTask(reference{entity}, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return nil, fault
	})
	ref := task.Run()
	task.Info.Error.LocalizedMessage = msg
	return ref
}

// result is that of a task of the package, all of which are over when they are returned.
func result(ref types.ManagedObjectReference) (types.AnyType, types.BaseMethodFault) {
	t := simulator.Map.Get(ref).(*simulator.Task)
	if t.Info.Error != nil {
		return nil, t.Info.Error.Fault
	}
	return t.Info.Result, nil
}

func fileFault(file string, err error) types.BaseMethodFault {
	log.Printf("%s: %s", file, err)
	return &types.FileFault{File: file}
}
