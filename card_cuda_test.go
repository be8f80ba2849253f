//go:build cuda

package stheno

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno/cudamodules"
	"stheno/cudamodules/emulator"
	"stheno/internal/card"
	"stheno/internal/optest"
	"stheno/ops/kvcompress"
)

// emulatedCard is the library of the emulated card; on a real one, which counts nothing, the test is left out.
func emulatedCard(t *testing.T) string {
	t.Helper()
	optest.Card(t)
	path := os.Getenv(cudamodules.LibraryVar)
	if !filepath.IsAbs(path) {
		t.Skip("not the emulated card, which counts what is held")
	}
	return path
}

// Sessions of a model that lies on the card have their caches there, and after Close, FromCard and training nothing is held.
func TestNothingStaysOnTheCard(t *testing.T) {
	path := emulatedCard(t)
	before := emulator.Held(path)
	cfg := cardConfigs()["llama"]
	cfg.Dropout = 0
	full, err := NewModel(cfg, 3)
	require.NoError(t, err)
	packed, err := full.Quantize(QuantizeConfig{Weights: INT8})
	require.NoError(t, err)
	ids := cardIDs(cfg, 9, 1)
	for _, m := range []*Model{full, packed} {
		for _, kv := range []kvcompress.Config{{}, {Ratio: 8, Recent: 16, GroupSize: 16}, {Budget: 8, Recent: 4, SinkTokens: 1}} {
			want := sessionLogits(t, m, kv, ids, false)
			require.NoError(t, m.ToCard())
			weights := emulator.Held(path)
			got := sessionLogits(t, m, kv, ids, kv.Budget == 0)
			optest.Close(t, "logits", got, want, 1e-5*(1+magnitude(want)))
			require.Equal(t, weights, emulator.Held(path), "a session that is closed holds nothing")
			require.NoError(t, m.FromCard())
			require.Equal(t, before, emulator.Held(path))
		}
	}
	result, err := Train(context.Background(), full, cardIDs(cfg, 60, 1), TrainConfig{Steps: 2, Batch: 1, Seq: 8})
	require.NoError(t, err)
	require.NoError(t, result.CardFull)
	require.Equal(t, before, emulator.Held(path), "after training")
}

// sessionLogits feeds ids to a session, many and then one at a time; caches says whether its caches are to lie on the card.
func sessionLogits(t *testing.T, m *Model, kv kvcompress.Config, ids []int, caches bool) []float64 {
	t.Helper()
	s, err := m.NewSession(SessionConfig{KV: kv})
	require.NoError(t, err)
	for _, c := range s.caches {
		x, ok := c.(interface{ OnCard() bool })
		require.Equal(t, caches, ok && x.OnCard(), "%T", c)
	}
	_, err = s.Feed(ids[:len(ids)-2])
	require.NoError(t, err)
	var logits []float32
	for _, id := range ids[len(ids)-2:] {
		logits, err = s.Feed([]int{id})
		require.NoError(t, err)
	}
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "a second time does nothing")
	return optest.Float64s(logits)
}

// Training on a card that has no room for weights besides the graph, or not even for them, copies them on every run, and says so; it comes
// to the same. One that has no room for the graph is an error.
func TestTrainingWithoutRoomOnTheCard(t *testing.T) {
	path := emulatedCard(t)
	defer emulator.Limit(path, 0)
	cfg := cardConfigs()["gpt2"]
	data := cardIDs(cfg, 60, 1)
	train := func() (*Model, TrainResult, error) {
		m, err := NewModel(cfg, 3)
		require.NoError(t, err)
		before := emulator.Held(path)
		result, err := Train(context.Background(), m, data, TrainConfig{Steps: 2, Batch: 1, Seq: 8})
		require.Equal(t, before, emulator.Held(path))
		return m, result, err
	}
	want, result, err := train()
	require.NoError(t, err)
	require.NoError(t, result.CardFull)
	used := emulator.Limit(path, 0)
	full, failed := 0, 0
	// What is needed is not known here: rooms from too small to enough, the last of those that fail and double of it in small steps.
	largest := int64(1 << 10)
	for ; ; largest *= 2 {
		emulator.Limit(path, used+largest)
		if _, _, err := train(); err == nil {
			break
		}
	}
	for room := largest / 2; room <= 2*largest; room += largest / 8 {
		emulator.Limit(path, used+room)
		m, result, err := train()
		if err != nil {
			require.True(t, card.OutOfMemory(err), err)
			require.Zero(t, full, "more room fails")
			failed++
			continue
		}
		if result.CardFull != nil {
			require.True(t, card.OutOfMemory(result.CardFull), result.CardFull)
			full++
		}
		// Weights are of the order of 0.1, and a step moves them by far more than roundings do.
		for i, p := range want.params {
			optest.Close(t, p.Name, optest.Values(t, m.params[i].Value), optest.Values(t, p.Value), 1e-6)
		}
	}
	t.Logf("%d rooms were too small, %d had no room for the weights", failed, full)
	require.NotZero(t, failed)
	require.NotZero(t, full)
}
