package kvcompress_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/internal/optest"
	"stheno/internal/parallel"
	"stheno/ops/flashattn"
	"stheno/ops/kvcompress"
)

var benchSchemes = []struct {
	name string
	cfg  kvcompress.Config
}{
	{"f32", kvcompress.Config{}},
	{"f16", kvcompress.Config{Ratio: 2}},
	{"int8", kvcompress.Config{Ratio: 4}},
	{"int4", kvcompress.Config{Ratio: 8}},
}

// BenchmarkDecode attends one query of each head over a full cache. Cold, as a model with other layers in between finds it, takes turns
// with as many caches as exceed the second-level cache many times; hot uses one.
func BenchmarkDecode(b *testing.B) {
	const heads, d = 12, 64
	for _, s := range benchSchemes {
		for _, kv := range []int{1024, 4096} {
			for _, cold := range []bool{true, false} {
				for _, threads := range []int{1, 2} {
					name := fmt.Sprintf("scheme=%s/kv=%d/heads=%d/d=%d/cold=%t/threads=%d", s.name, kv, heads, d, cold, threads)
					b.Run(name, func(b *testing.B) {
						old, err := parallel.SetThreads(threads)
						require.NoError(b, err)
						defer parallel.SetThreads(old)
						caches := make([]kvcompress.Cache, 1)
						if cold {
							caches = make([]kvcompress.Cache, 12*4096/kv)
						}
						k, v := optest.Normal[float32](1, kv*heads*d, 1), optest.Normal[float32](2, kv*heads*d, 1)
						q, out := optest.Normal[float32](3, heads*d, 1), make([]float32, heads*d)
						for i := range caches {
							caches[i], err = kvcompress.New(kvcompress.Shape{Batch: 1, KVHeads: heads, HeadDim: d, Capacity: kv}, s.cfg)
							require.NoError(b, err)
							require.NoError(b, caches[i].Append(k, v, kv))
						}
						i := 0
						for b.Loop() {
							require.NoError(b, caches[i%len(caches)].Attend(out, q, 1, heads, flashattn.Config{}, nil))
							i++
						}
						b.ReportMetric(float64(caches[0].Bytes())*float64(b.N)/b.Elapsed().Seconds()/1e9, "GB/s")
					})
				}
			}
		}
	}
}

// BenchmarkEvicting appends and attends one token, of 12 heads of 64, to a cache that is full: it keeps budget tokens of what is cached.
func BenchmarkEvicting(b *testing.B) {
	const heads, d, capacity = 12, 64, 1 << 20
	for _, budget := range []int{512, 1024} {
		for _, threads := range []int{1, 2} {
			b.Run(fmt.Sprintf("budget=%d/heads=%d/d=%d/threads=%d", budget, heads, d, threads), func(b *testing.B) {
				old, err := parallel.SetThreads(threads)
				require.NoError(b, err)
				defer parallel.SetThreads(old)
				c, err := kvcompress.New(kvcompress.Shape{Batch: 1, KVHeads: heads, HeadDim: d, Capacity: capacity}, kvcompress.Config{Budget: budget})
				require.NoError(b, err)
				q, k, v := optest.Normal[float32](1, budget*heads*d, 1), optest.Normal[float32](2, budget*heads*d, 1), optest.Normal[float32](3, budget*heads*d, 1)
				out := make([]float32, budget*heads*d)
				require.NoError(b, c.Append(k, v, budget))
				require.NoError(b, c.Attend(out, q, budget, heads, flashattn.Config{}, nil))
				i := 0
				for b.Loop() {
					at := i % budget * heads * d
					require.NoError(b, c.Append(k[at:][:heads*d], v[at:][:heads*d], 1))
					require.NoError(b, c.Attend(out[:heads*d], q[at:][:heads*d], 1, heads, flashattn.Config{}, nil))
					i++
				}
			})
		}
	}
}

// BenchmarkAppend appends tokens of 12 heads of 64 to a cache that holds 1,024: what a prompt costs, or a token, before attention. The
// cache rolls back after each prompt, and after 512 single tokens.
func BenchmarkAppend(b *testing.B) {
	const heads, d, held, room = 12, 64, 1024, 512
	for _, s := range benchSchemes {
		for _, tokens := range []int{1, room} {
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("scheme=%s/tokens=%d/heads=%d/d=%d/threads=%d", s.name, tokens, heads, d, threads), func(b *testing.B) {
					old, err := parallel.SetThreads(threads)
					require.NoError(b, err)
					defer parallel.SetThreads(old)
					c, err := kvcompress.New(kvcompress.Shape{Batch: 1, KVHeads: heads, HeadDim: d, Capacity: held + room}, s.cfg)
					require.NoError(b, err)
					k, v := optest.Normal[float32](1, held*heads*d, 1), optest.Normal[float32](2, held*heads*d, 1)
					require.NoError(b, c.Append(k, v, held))
					n := tokens * heads * d
					for b.Loop() {
						if c.Len()+tokens > held+room {
							require.NoError(b, c.Truncate(held))
						}
						at := (c.Len() - held) * heads * d
						require.NoError(b, c.Append(k[at:at+n], v[at:at+n], tokens))
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*tokens), "ns/token")
				})
			}
		}
	}
}

// BenchmarkPrompt appends and attends 512 tokens of 12 heads of 64, after as many that are cached as the name says.
func BenchmarkPrompt(b *testing.B) {
	const heads, d, rows = 12, 64, 512
	for _, s := range benchSchemes {
		for _, past := range []int{0, 3584} {
			for _, threads := range []int{1, 2} {
				b.Run(fmt.Sprintf("scheme=%s/past=%d/heads=%d/d=%d/threads=%d", s.name, past, heads, d, threads), func(b *testing.B) {
					old, err := parallel.SetThreads(threads)
					require.NoError(b, err)
					defer parallel.SetThreads(old)
					c, err := kvcompress.New(kvcompress.Shape{Batch: 1, KVHeads: heads, HeadDim: d, Capacity: past + rows}, s.cfg)
					require.NoError(b, err)
					n := rows * heads * d
					k, v := optest.Normal[float32](1, max(n, past*heads*d), 1), optest.Normal[float32](2, max(n, past*heads*d), 1)
					q, out := optest.Normal[float32](3, n, 1), make([]float32, n)
					if past > 0 {
						require.NoError(b, c.Append(k, v, past))
					}
					for b.Loop() {
						require.NoError(b, c.Truncate(past))
						require.NoError(b, c.Append(k[:n], v[:n], rows))
						require.NoError(b, c.Attend(out, q, rows, heads, flashattn.Config{}, nil))
					}
				})
			}
		}
	}
}
