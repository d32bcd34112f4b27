package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"path"
)

// saveState writes a snapshot's files beside the disks.
func (s *site) saveState(vm *vm, id int, memory bool) (files shotFiles, err error) {
	base := path.Join(path.Dir(vm.Config.Files.VmPathName), fmt.Sprintf("%s-Snapshot%d", path.Base(vm.Name), id))
	files.data = base + ".vmsn"
	file, err := local(files.data)
	if err != nil {
		return files, err
	}
	if err := os.WriteFile(file, pattern(64<<10, uint64(id)<<32), 0600); err != nil || !memory {
		return files, err
	}
	files.memory = base + ".vmem"
	if file, err = local(files.memory); err != nil {
		return files, err
	}
	size := int64(vm.Config.Hardware.MemoryMB) << 20
	content := s.shots.memory[vm.Self.Value]
	if content == nil {
		n := size
		if n > memoryPattern {
			n = memoryPattern
		}
		content = pattern(int(n), uint64(id)<<40)
	}
	if err := os.WriteFile(file, content, 0600); err != nil {
		return files, err
	}
	return files, os.Truncate(file, size)
}

// pattern is numbers that count up.
func pattern(size int, from uint64) []byte {
	out := make([]byte, size)
	for i := 0; i+8 <= size; i += 8 {
		binary.LittleEndian.PutUint64(out[i:], from+uint64(i))
	}
	return out
}
