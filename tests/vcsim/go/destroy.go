package main

import (
	"os"
	"path"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// destroyed returns the files of disks that a specification destroys.
func destroyed(vm *vm, spec *types.VirtualMachineConfigSpec) (files []string) {
	for _, change := range spec.DeviceChange {
		op := change.GetVirtualDeviceConfigSpec()
		if op.FileOperation != types.VirtualDeviceConfigSpecFileOperationDestroy {
			continue
		}
		if _, b := diskWithKey(vm.Config.Hardware.Device, op.Device.GetVirtualDevice().Key); b != nil {
			for _, name := range []string{b.FileName, flatName(b.FileName)} {
				if file, err := local(name); err == nil {
					files = append(files, file)
				}
			}
		}
	}
	return files
}

func (s *site) destroyVM(ctx *simulator.Context, c *call) soap.HasFault {
	ref := s.run(c.this, c.method, "destroy", func() (types.AnyType, types.BaseMethodFault) {
		return nil, s.destroy(ctx, c.vm)
	})
	return &methods.Destroy_TaskBody{Res: &types.Destroy_TaskResponse{Returnval: ref}}
}

func (s *site) destroy(ctx *simulator.Context, vm *vm) types.BaseMethodFault {
	below := snapshotsOf(vm)
	layers := backings(vm, &shot{})
	back := setAside(vm)
	veil(vm)
	_, fault := result(vm.DestroyTask(ctx, &types.Destroy_Task{This: vm.Self}).(*methods.Destroy_TaskBody).Res.Returnval)
	back()
	if fault != nil {
		return fault
	}
	for _, one := range below {
		simulator.Map.Remove(one.Self)
		delete(s.shots.files, one.Self)
	}
	delete(s.shots.left, vm.Self.Value)
	for _, b := range layers {
		for ; b != nil; b = b.Parent {
			for _, name := range []string{b.FileName, flatName(b.FileName)} {
				if file, err := local(name); err == nil && !strings.HasSuffix(file, "/") {
					_ = os.Remove(file)
				}
			}
		}
	}
	return nil
}

// setAside hides files in a machine's directory that are not its own from the package, which would remove them, until
// the function that it returns is called.
func setAside(vm *vm) func() {
	dir, err := local(path.Dir(vm.Config.Files.VmPathName))
	if err != nil {
		return func() {}
	}
	own := map[string]bool{"vmware.log": true}
	for _, f := range vm.LayoutEx.File {
		own[path.Base(f.Name)] = true
	}
	aside := dir + ".aside"
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if !own[e.Name()] {
			_ = os.Mkdir(aside, 0700)
			_ = os.Rename(path.Join(dir, e.Name()), path.Join(aside, e.Name()))
		}
	}
	return func() {
		entries, _ := os.ReadDir(aside)
		for _, e := range entries {
			_ = os.MkdirAll(dir, 0700)
			_ = os.Rename(path.Join(aside, e.Name()), path.Join(dir, e.Name()))
		}
		_ = os.Remove(aside)
	}
}
