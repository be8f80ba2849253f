package procmem

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func tree(files map[string]string) fstest.MapFS {
	out := fstest.MapFS{}
	for name, text := range files {
		out[name] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestAvailableKnowsControlGroups(t *testing.T) {
	const free = "MemTotal: 9000 kB\nMemAvailable: 8000 kB\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  int64
	}{
		"nothing":  {nil, Assumed},
		"no group": {map[string]string{"proc/meminfo": free}, 8000 << 10},
		"version 2": {map[string]string{"proc/meminfo": free, "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/b/memory.current": "500\n",
			"sys/fs/cgroup/a/memory.max": "5000\n", "sys/fs/cgroup/a/memory.current": "1000\n",
			"sys/fs/cgroup/a/memory.stat": "anon 400\ninactive_file 300\n"}, 4300},
		"version 2, in a container": {map[string]string{"proc/meminfo": free, "proc/self/cgroup": "0::/host/path\n",
			"sys/fs/cgroup/memory.max": "5000\n", "sys/fs/cgroup/memory.current": "1000\n"}, 4000},
		"version 1": {map[string]string{"proc/meminfo": free, "proc/self/cgroup": "3:cpu:/\n2:memory,hugetlb:/a\n",
			"sys/fs/cgroup/memory/a/memory.limit_in_bytes": "700\n", "sys/fs/cgroup/memory/a/memory.usage_in_bytes": "600\n",
			"sys/fs/cgroup/memory/a/memory.stat": "inactive_file 1\ntotal_inactive_file 50\n"}, 150},
		"version 1 without limit": {map[string]string{"proc/meminfo": free, "proc/self/cgroup": "2:memory:/\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n", "sys/fs/cgroup/memory/memory.usage_in_bytes": "600\n"}, 8000 << 10},
		"over the limit": {map[string]string{"proc/meminfo": free, "proc/self/cgroup": "0::/\n",
			"sys/fs/cgroup/memory.max": "5000\n", "sys/fs/cgroup/memory.current": "6000\n"}, 0},
	} {
		require.Equal(t, c.want, available(tree(c.files)), name)
	}
	require.Positive(t, Available())
}

func TestPeakCountsWhatIsTouched(t *testing.T) {
	touch := func(n int) []byte {
		block := make([]byte, n)
		for i := 0; i < n; i += 1 << 10 {
			block[i] = 1
		}
		return block
	}
	block := touch(64 << 20)
	require.Greater(t, Peak(), int64(len(block)))
	require.NotZero(t, block[0])
	if !ResetPeak() {
		t.Skip("the system does not let VmHWM be reset")
	}
}
