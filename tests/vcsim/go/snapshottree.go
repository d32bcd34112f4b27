package main

import (
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// walk yields all snapshots, parents first.
func walk(t tree, f func(*types.VirtualMachineSnapshotTree)) {
	for i := range t {
		f(&t[i])
		walk(t[i].ChildSnapshotList, f)
	}
}

func snapshotsOf(vm *vm) (all []*shot) {
	if vm.Snapshot == nil {
		return nil
	}
	walk(vm.Snapshot.RootSnapshotList, func(node *types.VirtualMachineSnapshotTree) {
		if one, ok := simulator.Map.Get(node.Snapshot).(*shot); ok {
			all = append(all, one)
		}
	})
	return all
}

func snapshotsBelow(vm *vm, ref types.ManagedObjectReference) (all []*shot) {
	walk(vm.Snapshot.RootSnapshotList, func(node *types.VirtualMachineSnapshotTree) {
		if node.Snapshot == ref {
			walk(node.ChildSnapshotList, func(below *types.VirtualMachineSnapshotTree) {
				all = append(all, simulator.Map.Get(below.Snapshot).(*shot))
			})
		}
	})
	return all
}

// withSnapshot returns a copy with a new current snapshot; who reads the old one is not disturbed.
func withSnapshot(info *types.VirtualMachineSnapshotInfo, node types.VirtualMachineSnapshotTree) *types.VirtualMachineSnapshotInfo {
	out := &types.VirtualMachineSnapshotInfo{CurrentSnapshot: &node.Snapshot}
	if info == nil || info.CurrentSnapshot == nil {
		if info != nil {
			out.RootSnapshotList = copied(info.RootSnapshotList)
		}
		out.RootSnapshotList = append(out.RootSnapshotList, node)
		return out
	}
	out.RootSnapshotList = copied(info.RootSnapshotList)
	walk(out.RootSnapshotList, func(parent *types.VirtualMachineSnapshotTree) {
		if parent.Snapshot == *info.CurrentSnapshot {
			parent.ChildSnapshotList = append(parent.ChildSnapshotList, node)
		}
	})
	return out
}

// withoutSnapshot returns a copy without one, whose children go to its parent; nil when none is left.
func withoutSnapshot(info *types.VirtualMachineSnapshotInfo, ref types.ManagedObjectReference) interface{} {
	if info == nil {
		return nil
	}
	current := info.CurrentSnapshot
	if current != nil && *current == ref {
		current = parentOf(info.RootSnapshotList, ref, nil)
	}
	roots := dropped(copied(info.RootSnapshotList), ref)
	if len(roots) == 0 {
		return nil
	}
	return &types.VirtualMachineSnapshotInfo{CurrentSnapshot: current, RootSnapshotList: roots}
}

func copied(t tree) (out tree) {
	for _, node := range t {
		node.ChildSnapshotList = copied(node.ChildSnapshotList)
		out = append(out, node)
	}
	return out
}

func dropped(t tree, ref types.ManagedObjectReference) (out tree) {
	for _, node := range t {
		node.ChildSnapshotList = dropped(node.ChildSnapshotList, ref)
		if node.Snapshot == ref {
			out = append(out, node.ChildSnapshotList...)
		} else {
			out = append(out, node)
		}
	}
	return out
}

func parentOf(t tree, ref types.ManagedObjectReference, up *types.ManagedObjectReference) *types.ManagedObjectReference {
	for i := range t {
		if t[i].Snapshot == ref {
			return up
		}
		if p := parentOf(t[i].ChildSnapshotList, ref, &t[i].Snapshot); p != nil {
			return p
		}
	}
	return nil
}
