package stheno_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"stheno"
	"stheno/ops"
)

// A model learns to count to five, and counts on.
func Example() {
	m, err := stheno.NewModel(stheno.Llama(5, 1, 16, 2, 1, 32), 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	data := make([]int, 500)
	for i := range data {
		data[i] = i % 5
	}
	result, err := stheno.Train(context.Background(), m, data, stheno.TrainConfig{
		Steps: 60, Batch: 2, Seq: 16, Optimizer: ops.AdamWConfig{LR: 0.01},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("learned:", result.Loss < 0.1)
	text, _, err := m.Generate(context.Background(), []int{3, 4}, stheno.GenerateConfig{MaxTokens: 8})
	fmt.Println(text, err)
	// Output:
	// learned: true
	// [0 1 2 3 4 0 1 2] <nil>
}

func ExampleConfig_Params() {
	fmt.Println(stheno.GPT2Small().Params())
	// Output: 124439808
}

func ExampleModel_Save() {
	dir, err := os.MkdirTemp("", "stheno")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")
	m, err := stheno.NewModel(stheno.GPT2(256, 2, 32, 4, 64), 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Save(path))
	back, err := stheno.Load(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(back.Config() == m.Config(), back.Bytes() == m.Bytes())
	// Output:
	// <nil>
	// true true
}

func ExampleModel_NewSession() {
	m, err := stheno.NewModel(stheno.GPT2(256, 2, 32, 4, 64), 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	s, err := m.NewSession(stheno.SessionConfig{Capacity: 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	logits, err := s.Feed([]int{1, 2, 3}) // a prompt
	fmt.Println(len(logits), s.Len(), err)
	logits, err = s.Feed([]int{4}) // the next token
	fmt.Println(len(logits), s.Len(), err)
	// Output:
	// 256 3 <nil>
	// 256 4 <nil>
}

func ExampleModel_TrainingGraph() {
	m, err := stheno.NewModel(stheno.GPT2(11, 1, 8, 2, 16), 1)
	if err != nil {
		fmt.Println(err)
		return
	}
	g, err := m.TrainingGraph(1, 4, stheno.Fused)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer g.Close()
	loss, err := g.Run([]int{1, 2, 3, 4}, []int{2, 3, 4, 5})
	fmt.Printf("%.1f %v\n", loss, err) // ln 11, as nothing is learned yet
	fmt.Println(g.Params[0].Name(), g.Grads[0].Shape())
	// Output:
	// 2.4 <nil>
	// wte.weight (11, 8)
}
