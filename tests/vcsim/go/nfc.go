package main

import (
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/vim25/types"
)

// serveNFC is the data of leases: it needs no session, the lease is the secret.
func (s *site) serveNFC(w http.ResponseWriter, r *http.Request, capacity int64) {
	p := strings.Split(strings.TrimPrefix(r.URL.Path, "/nfc/"), "/")
	s.leases.mu.Lock()
	l := s.leases.all[p[0]]
	s.leases.mu.Unlock()
	if l == nil || len(p) != 2 {
		http.NotFound(w, r)
		return
	}
	s.world.Lock()
	f, ok := l.files[p[1]]
	vm := s.subject(l.entity)
	open := !l.closed && l.State == types.HttpNfcLeaseStateReady
	away := vm != nil && !hostConnected(vm)
	s.world.Unlock()
	switch {
	case !ok || !open || vm == nil:
		http.NotFound(w, r)
	case away:
		w.WriteHeader(http.StatusServiceUnavailable)
	case f.size < 0:
		sendFile(w, r, f.file)
	case r.Method == http.MethodGet && !l.imports:
		defer s.counts.begin(vm, f.datastore, "lease")()
		if capacity == 0 {
			capacity = f.size
		}
		s.sendDisk(w, l, p[1], f, capacity)
	case (r.Method == http.MethodPut || r.Method == http.MethodPost) && l.imports:
		n, err := s.takeDisk(r.Body, f)
		if err != nil {
			log.Printf("upload to %s: %s", r.URL.Path, err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		s.counts.uploaded(upload{vm.Name, p[1], n, r.ContentLength < 0})
		w.WriteHeader(http.StatusCreated)
	default:
		w.WriteHeader(http.StatusMethodNotAllowed)
	}
}

// sendDisk streams a disk: chunked, so neither its length nor a part of it can be had.
func (s *site) sendDisk(w http.ResponseWriter, l *lease, name string, f leaseFile, capacity int64) {
	src, err := os.Open(f.file)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer src.Close()
	w.Header().Set("Content-Type", "application/x-vnd.vmware-streamVmdk")
	sum := sha1.New()
	n, err := writeStreamOptimized(io.MultiWriter(w, sum), src, f.size, capacity)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	s.world.Lock()
	defer s.world.Unlock()
	l.manifest = append(l.manifest, types.HttpNfcLeaseManifestEntry{
		Key: name, Sha1: hex.EncodeToString(sum.Sum(nil)), Size: n, Disk: true, Capacity: f.size,
	})
}

// takeDisk stores an uploaded streamOptimized VMDK; qemu-img judges it.
func (s *site) takeDisk(body io.Reader, f leaseFile) (int64, error) {
	tmp := filepath.Join(s.dir, "upload-"+uuid.New().String())
	raw := tmp + ".raw"
	defer os.Remove(tmp)
	defer os.Remove(raw)
	dst, err := os.Create(tmp)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(dst, body)
	if err == nil {
		err = isStream(dst)
	}
	if e := dst.Close(); err == nil {
		err = e
	}
	if err != nil {
		return n, err
	}
	if out, err := exec.Command(s.qemuImg, "convert", "-f", "vmdk", "-O", "raw", tmp, raw).CombinedOutput(); err != nil {
		return n, fmt.Errorf("%s: %s", err, out)
	}
	st, err := os.Stat(raw)
	if err != nil {
		return n, err
	}
	if st.Size() != f.size {
		return n, fmt.Errorf("the upload's capacity is %d, that of the disk %d", st.Size(), f.size)
	}
	if err := move(raw, f.file); err != nil {
		return n, err
	}
	return n, nil
}

func move(from, to string) error {
	if os.Rename(from, to) == nil {
		return nil
	}
	return copySparse(from, to) // another file system
}

// isStream says whether a file is what hosts take: compressed grains with markers.
func isStream(f *os.File) error {
	var head [80]byte
	if _, err := f.ReadAt(head[:], 0); err != nil {
		return fmt.Errorf("too short for a VMDK: %w", err)
	}
	flags, compress := binary.LittleEndian.Uint32(head[8:]), binary.LittleEndian.Uint16(head[77:])
	if string(head[:4]) != "KDMV" || flags&0x30000 != 0x30000 || compress != 1 {
		return fmt.Errorf("not a streamOptimized VMDK")
	}
	return nil
}
