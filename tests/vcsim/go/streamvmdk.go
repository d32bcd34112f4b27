package main

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"io"
	"os"
)

// writeStreamOptimized writes a raw image as ESXi exports it: a header with the
// directory "at end", compressed grains, a table after each 512, directory,
// footer, end of stream; told is the capacity that the header claims.  (qemu-img's has its tables in front
// and no end marker, so it is no stand-in for a host's export.)
func writeStreamOptimized(dst io.Writer, raw *os.File, capacity, told int64) (int64, error) {
	const sect, grain = int64(512), int64(64 << 10)
	var pos int64
	var werr error
	w := func(p []byte) {
		if werr == nil {
			_, werr = dst.Write(p)
		}
		pos += int64(len(p))
	}
	pad := func() {
		if n := pos % sect; n != 0 {
			w(make([]byte, sect-n))
		}
	}
	header := func(gd uint64) []byte {
		var b bytes.Buffer
		b.WriteString("KDMV")
		_ = binary.Write(&b, binary.LittleEndian, struct {
			Version, Flags                        uint32
			Capacity, Grain, DescOffset, DescSize uint64
			NumGTEs                               uint32
			Rgd, Gd, OverHead                     uint64
			Unclean                               uint8
			Eol                                   [4]byte
			Compress                              uint16
		}{3, 0x30001, uint64(told / sect), uint64(grain / sect), 1, 20, 512, 0, gd, 128, 0, [4]byte{'\n', ' ', '\r', '\n'}, 1})
		return append(b.Bytes(), make([]byte, int(sect)-b.Len())...)
	}
	marker := func(sectors uint64, kind uint32) {
		b := make([]byte, sect)
		binary.LittleEndian.PutUint64(b, sectors)
		binary.LittleEndian.PutUint32(b[12:], kind)
		w(b)
	}
	w(header(^uint64(0)))
	w([]byte(fmt.Sprintf("# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType=\"streamOptimized\"\n\n"+
		"RW %d SPARSE \"disk.vmdk\"\n\nddb.adapterType = \"lsilogic\"\nddb.virtualHWVersion = \"13\"\n", capacity/sect)))
	w(make([]byte, 128*sect-pos))
	tables := (capacity + grain*512 - 1) / (grain * 512)
	gd := make([]uint32, tables)
	buf, zero := make([]byte, grain), make([]byte, grain)
	for t := int64(0); t < tables; t++ {
		gt, used := make([]uint32, 512), false
		for g := int64(0); g < 512 && (t*512+g)*grain < capacity; g++ {
			copy(buf, zero)
			n, err := raw.ReadAt(buf, (t*512+g)*grain)
			if err != nil && err != io.EOF {
				return pos, err
			}
			if n == 0 || bytes.Equal(buf, zero) {
				continue
			}
			var z bytes.Buffer
			zw, _ := zlib.NewWriterLevel(&z, 1)
			_, _ = zw.Write(buf)
			_ = zw.Close()
			gt[g], used = uint32(pos/sect), true
			h := make([]byte, 12)
			binary.LittleEndian.PutUint64(h, uint64((t*512+g)*grain/sect))
			binary.LittleEndian.PutUint32(h[8:], uint32(z.Len()))
			w(h)
			w(z.Bytes())
			pad()
		}
		if used {
			marker(4, 1)
			gd[t] = uint32(pos / sect)
			var b bytes.Buffer
			_ = binary.Write(&b, binary.LittleEndian, gt)
			w(b.Bytes())
		}
		if werr != nil {
			return pos, werr
		}
	}
	marker(uint64((tables*4+sect-1)/sect), 2)
	at := uint64(pos / sect)
	var b bytes.Buffer
	_ = binary.Write(&b, binary.LittleEndian, gd)
	w(b.Bytes())
	pad()
	marker(1, 3)
	w(header(at))
	w(make([]byte, sect))
	return pos, werr
}
