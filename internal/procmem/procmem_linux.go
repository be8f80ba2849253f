package procmem

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"strconv"
	"strings"
)

// Meaning says what Peak counts.
const Meaning = "resident memory of the process at its highest (VmHWM)"

// Peak is the most memory that this process has had since its start or the last ResetPeak, in bytes.
func Peak() int64 { return field(os.DirFS("/"), "proc/self/status", "VmHWM:") << 10 }

// ResetPeak makes Peak count from now on, if the system can.
func ResetPeak() bool { return os.WriteFile("/proc/self/clear_refs", []byte("5"), 0) == nil }

// Available is what the machine can still give this process, in bytes: what is free or can be freed at once, and no more than
// the limits of the control groups that it is in.
func Available() int64 { return available(os.DirFS("/")) }

func available(root fs.FS) int64 {
	n := int64(Assumed)
	if kib := field(root, "proc/meminfo", "MemAvailable:"); kib > 0 {
		n = kib << 10
	}
	text, err := fs.ReadFile(root, "proc/self/cgroup")
	if err != nil {
		return n
	}
	for _, line := range strings.Split(string(text), "\n") {
		parts := strings.SplitN(line, ":", 3) // hierarchy:controllers:path
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[1] == "":
			n = min(n, left(root, "sys/fs/cgroup", parts[2], "memory.max", "memory.current", "inactive_file"))
		case strings.Contains(","+parts[1]+",", ",memory,"):
			n = min(n, left(root, "sys/fs/cgroup/memory", parts[2], "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"))
		}
	}
	return n
}

// left is the room below the limits of a control group and of those around it. Cached pages of files that nobody has used for
// a while count as room. Inside a container the path is often that of the host, and the group's files lie at the mount itself.
func left(root fs.FS, mount, group, limit, usage, cached string) int64 {
	n := int64(math.MaxInt64)
	for dir := path.Join(mount, group); ; dir = path.Dir(dir) {
		most, ok := number(root, path.Join(dir, limit))
		used, ok2 := number(root, path.Join(dir, usage))
		if ok && ok2 {
			n = min(n, max(0, most-used+min(used, field(root, path.Join(dir, "memory.stat"), cached+" "))))
		}
		if len(dir) <= len(mount) {
			return n
		}
	}
}

// number reads a file of one number; "max" and what is no number at all are none.
func number(root fs.FS, name string) (int64, bool) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}

// field reads the number of a line that starts with key, 0 if there is none.
func field(root fs.FS, name, key string) (n int64) {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return 0
	}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		if rest, ok := strings.CutPrefix(lines.Text(), key); ok {
			fmt.Sscan(rest, &n)
			return n
		}
	}
	return 0
}
