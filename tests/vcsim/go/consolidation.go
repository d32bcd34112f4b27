package main

import (
	"os"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

func (s *site) removeSnapshot(ctx *simulator.Context, c *call) soap.HasFault {
	req := c.body.(*types.RemoveSnapshot_Task)
	one := simulator.Map.Get(c.this).(*shot)
	ref := s.run(c.vm.Self, c.method, "removeSnapshot", func() (types.AnyType, types.BaseMethodFault) {
		doomed := []*shot{one}
		if req.RemoveChildren {
			doomed = append(doomed, snapshotsBelow(c.vm, one.Self)...)
		}
		for i := len(doomed) - 1; i >= 0; i-- {
			if f := s.remove(c.vm, doomed[i]); f != nil {
				return nil, f
			}
		}
		return nil, nil
	})
	return &methods.RemoveSnapshot_TaskBody{Res: &types.RemoveSnapshot_TaskResponse{Returnval: ref}}
}

func (s *site) removeAllSnapshots(ctx *simulator.Context, c *call) soap.HasFault {
	ref := s.run(c.this, c.method, "removeAllSnapshots", func() (types.AnyType, types.BaseMethodFault) {
		for _, one := range snapshotsOf(c.vm) {
			if f := s.remove(c.vm, one); f != nil {
				return nil, f
			}
		}
		return nil, nil
	})
	return &methods.RemoveAllSnapshots_TaskBody{Res: &types.RemoveAllSnapshots_TaskResponse{Returnval: ref}}
}

func (s *site) consolidate(ctx *simulator.Context, c *call) soap.HasFault {
	ref := s.run(c.this, c.method, "consolidateDisks", func() (types.AnyType, types.BaseMethodFault) {
		for _, one := range s.shots.left[c.vm.Self.Value] {
			if err := merge(c.vm, one); err != nil {
				return nil, fileFault(c.vm.Name, err)
			}
		}
		delete(s.shots.left, c.vm.Self.Value)
		simulator.Map.Update(c.vm, []types.PropertyChange{
			{Name: "config.hardware.device", Val: c.vm.Config.Hardware.Device},
			{Name: "runtime.consolidationNeeded", Val: false},
		})
		s.layout(c.vm)
		return nil, nil
	})
	return &methods.ConsolidateVMDisks_TaskBody{Res: &types.ConsolidateVMDisks_TaskResponse{Returnval: ref}}
}

// remove takes a snapshot out of the tree and merges its layer, unless a test wants that to fail.
func (s *site) remove(vm *vm, one *shot) (fault types.BaseMethodFault) {
	if s.shots.broken > 0 {
		s.shots.broken--
		s.shots.left[vm.Self.Value] = append(s.shots.left[vm.Self.Value], one)
		fault = s.shots.refuse
	} else if err := merge(vm, one); err != nil {
		return fileFault(vm.Name, err)
	}
	for _, name := range []string{s.shots.files[one.Self].data, s.shots.files[one.Self].memory} {
		if file, err := local(name); name != "" && err == nil {
			_ = os.Remove(file)
		}
	}
	delete(s.shots.files, one.Self)
	simulator.Map.Update(vm, []types.PropertyChange{
		{Name: "snapshot", Val: withoutSnapshot(vm.Snapshot, one.Self)},
		{Name: "config.hardware.device", Val: vm.Config.Hardware.Device},
		{Name: "runtime.consolidationNeeded", Val: len(s.shots.left[vm.Self.Value]) > 0},
	})
	simulator.Map.Remove(one.Self)
	s.layout(vm)
	return fault
}

// merge makes the layer above a snapshot the snapshot's own file: a layer holds the whole disk.
func merge(vm *vm, one *shot) error {
	all := backings(vm, one)
	return disksOf(one.Config.Hardware.Device, func(_ *types.VirtualDisk, b *flat) error {
		above := ""
		for _, x := range all {
			if x.Parent != nil && x.Parent.FileName == b.FileName {
				above = x.FileName
			}
		}
		if above == "" {
			return nil
		}
		from, err := local(flatName(above))
		if err != nil {
			return err
		}
		to, err := local(flatName(b.FileName))
		if err != nil {
			return err
		}
		if err := os.Rename(from, to); err != nil {
			return err
		}
		if file, err := local(above); err == nil {
			_ = os.Remove(file)
		}
		for _, x := range all {
			if x.FileName == above {
				x.FileName, x.Parent = b.FileName, b.Parent
			}
			if x.Parent != nil && x.Parent.FileName == above {
				x.Parent.FileName, x.Parent.Parent = b.FileName, b.Parent
			}
		}
		return nil
	})
}

// backings are all of a machine and its snapshots but one.
func backings(vm *vm, but *shot) (all []*flat) {
	collect := func(_ *types.VirtualDisk, b *flat) error {
		all = append(all, b)
		return nil
	}
	_ = disksOf(vm.Config.Hardware.Device, collect)
	for _, one := range snapshotsOf(vm) {
		if one.Self != but.Self {
			_ = disksOf(one.Config.Hardware.Device, collect)
		}
	}
	return all
}
