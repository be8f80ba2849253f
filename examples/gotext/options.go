package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"runtime"

	"stheno"
	"stheno/internal/aside"
	"stheno/ops/kvcompress"
	"stheno/ops/quantize"
)

// vocab is the number of tokens: one for each value of a byte.
const vocab = 256

// maxMinutes is about two years, which a time.Duration holds.
const maxMinutes = 1_000_000

// maxFurther is more steps than anyone waits for.
const maxFurther = 1 << 30

// defaultPrompts are completed when no -prompt is given.
var defaultPrompts = []string{
	"func (r *Reader) Read(",
	"// String returns the ",
	"\tif err := ",
}

// options are the command line.
type options struct {
	data    string
	arch    string
	layers  int
	dim     int
	heads   int
	kvHeads int
	seq     int
	batch   int

	steps   int
	minutes float64
	rate    float64
	seed    uint64
	threads int

	prompts     []string
	tokens      int
	temperature float64

	weights   stheno.Precision
	rounding  quantize.Method
	qat       int // further steps for codes; 0: none
	qatRate   float64
	roundings bool // compare ways of rounding: -rounding or -qat was given

	kv       kvcompress.Config
	kvRecent int

	save, saveQuantized, load, out string
	compare                        bool

	ownSeq bool // -seq was not given with -load: it is the loaded model's
	train  bool // false when weights were loaded and no training was asked for
}

// parseOptions reads the command line. With -h it prints the help to out and returns flag.ErrHelp.
func parseOptions(args []string, out io.Writer) (options, error) {
	var o options
	f := flag.NewFlagSet("gotext", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.StringVar(&o.data, "data", "", "train on the text files under `DIR` (default: the Go standard library's source, under GOROOT)")
	f.StringVar(&o.arch, "arch", "llama", "architecture: gpt2 or llama")
	f.IntVar(&o.layers, "layers", 4, "blocks")
	f.IntVar(&o.dim, "dim", 128, "width of the model")
	f.IntVar(&o.heads, "heads", 4, "query heads")
	f.IntVar(&o.kvHeads, "kv-heads", 0, "key and value heads, a divisor of -heads (default: half of -heads with llama, -heads with gpt2)")
	f.IntVar(&o.seq, "seq", 128, "context, in bytes; short ones learn sooner, long ones further (with -load: the loaded model's unless given)")
	f.IntVar(&o.batch, "batch", 4, "sequences in a training step")
	f.IntVar(&o.steps, "steps", 0, "training steps (default: as many as -minutes has room for)")
	f.Float64Var(&o.minutes, "minutes", 2, "minutes of training, where -steps is not given")
	f.Float64Var(&o.rate, "rate", 0.002, "highest learning rate")
	f.Uint64Var(&o.seed, "seed", 1, "seed of weights, training order and completions")
	f.IntVar(&o.threads, "threads", runtime.GOMAXPROCS(0), "threads to compute with")
	f.Func("prompt", "complete this `TEXT`; may be given several times (default: three pieces of Go)", func(s string) error {
		o.prompts = append(o.prompts, s)
		return nil
	})
	f.IntVar(&o.tokens, "tokens", 100, "bytes of a completion, as far as -seq has room for them")
	f.Float64Var(&o.temperature, "temperature", 0.6, "of completions; 0 takes the likeliest byte each time")
	f.StringVar(&o.save, "save", "", "write the weights to `FILE.safetensors`")
	f.StringVar(&o.load, "load", "", "begin with the weights of `FILE.safetensors`; trains on only if -steps or -minutes is given")
	f.Func("weights", "run the model with weights in `PRECISION`: f32, f16, bf16, int8, int8-dynamic, int4, int4-dynamic, or auto, which finds one for each layer (default f32)", func(s string) (err error) {
		o.weights, err = stheno.ParsePrecision(s)
		return err
	})
	f.Func("rounding", "with -weights int8 or int4, dynamic or not: choose codes by `METHOD`: nearest, clipped (least squared error of the weights) or gptq (of the outputs on training text); ends with a table of what each loses (default nearest)", func(s string) (err error) {
		o.rounding, err = parseRounding(s)
		return err
	})
	f.IntVar(&o.qat, "qat", 0, "with such -weights: train a copy of the model `N` more steps for its codes, complete with that, and show how much of the loss of rounding it wins back; -save writes the model before. A second copy takes the same steps in float32, to compare with")
	f.Float64Var(&o.qatRate, "qat-rate", 0.0005, "with -qat: highest learning rate of the further steps, from which it falls to zero")
	kv := stheno.F32
	f.Func("kv", "keep keys and values of tokens that are not recent in `PRECISION`: f32, f16, int8 or int4 (default f32)", func(s string) (err error) {
		if kv, err = stheno.ParsePrecision(s); err == nil {
			_, err = stheno.KVConfig(kv, 0)
		}
		return err
	})
	f.IntVar(&o.kvRecent, "kv-recent", 32, "with -kv: how many of the newest tokens are kept as they are")
	keep := f.Int("kv-keep", 0, "keep keys and values of at most `N` tokens in each head: the first 4, the newest half, and those that got most attention; 0 keeps all")
	f.StringVar(&o.saveQuantized, "save-quantized", "", "with -weights: write the quantized weights to `FILE.safetensors`")
	f.StringVar(&o.out, "out", "gotext-out", "write pictures to `DIR`; an empty name means none")
	f.BoolVar(&o.compare, "compare", true, "compare with plain Gorgonia nodes")

	if err := f.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(out, "Trains a small transformer on text, completes prompts with it, and compares it with plain Gorgonia nodes.\n\nFlags:")
			f.SetOutput(out)
			f.PrintDefaults()
		}
		return o, err
	}
	if o.kvRecent < 1 || o.kvRecent > 1<<20 {
		return o, fmt.Errorf("-kv-recent: got %d, want 1 to %d", o.kvRecent, 1<<20)
	}
	var err error
	if o.kv, err = stheno.KVConfig(kv, o.kvRecent); err != nil {
		return o, err
	}
	switch {
	case *keep == 0:
	case *keep < 8 || *keep > 1<<20:
		return o, fmt.Errorf("-kv-keep: got %d, want 0 or 8 to %d", *keep, 1<<20)
	case kv != stheno.F32:
		return o, fmt.Errorf("-kv-keep: got %d with -kv %v, want one of them: what is kept is float32", *keep, kv)
	default:
		o.kv = kvcompress.Config{Budget: *keep, SinkTokens: 4}
	}
	given := map[string]bool{}
	f.Visit(func(f *flag.Flag) { given[f.Name] = true })
	if f.NArg() > 0 {
		return o, fmt.Errorf("got an argument %q, want flags only: gotext -h lists them", f.Arg(0))
	}
	if o.load != "" {
		for _, name := range []string{"arch", "layers", "dim", "heads", "kv-heads"} {
			if given[name] {
				return o, fmt.Errorf("got -%s with -load, want one of them: the file decides the model's shape", name)
			}
		}
	}
	o.roundings = given["rounding"] || given["qat"]
	o.ownSeq = o.load != "" && !given["seq"]
	o.train = o.load == "" || given["steps"] || given["minutes"]
	if len(o.prompts) == 0 {
		o.prompts = defaultPrompts
	}
	if o.kvHeads == 0 && !given["kv-heads"] {
		o.kvHeads = o.heads
		if o.arch == "llama" && o.heads%2 == 0 {
			o.kvHeads = o.heads / 2
		}
	}
	return o, o.check(given)
}

// check reports the first option that cannot be, before anything is computed.
func (o options) check(given map[string]bool) error {
	for _, f := range []struct {
		name     string
		got      int
		from, to int
	}{
		{"batch", o.batch, 1, 1 << 16},
		{"seq", o.seq, 2, 1 << 20},
		{"tokens", o.tokens, 1, 1 << 20},
		{"threads", o.threads, 1, runtime.NumCPU()},
		{"layers", o.layers, 1, 1 << 12},
		{"dim", o.dim, 1, 1 << 16},
		{"heads", o.heads, 1, 1 << 12},
		{"kv-heads", o.kvHeads, 1, 1 << 12},
	} {
		if f.got < f.from || f.got > f.to {
			return fmt.Errorf("-%s: got %d, want %d to %d", f.name, f.got, f.from, f.to)
		}
	}
	switch {
	case given["steps"] && o.steps < 1:
		return fmt.Errorf("-steps: got %d, want at least 1", o.steps)
	case !(o.minutes > 0 && o.minutes <= maxMinutes):
		return fmt.Errorf("-minutes: got %v, want a positive number, at most %d", o.minutes, int(maxMinutes))
	case !(o.rate > 0) || math.IsInf(o.rate, 0):
		return fmt.Errorf("-rate: got %v, want a positive number", o.rate)
	case !(o.temperature >= 0) || math.IsInf(o.temperature, 0):
		return fmt.Errorf("-temperature: got %v, want 0 or a positive number", o.temperature)
	case o.arch != "gpt2" && o.arch != "llama":
		return fmt.Errorf("-arch: got %q, want gpt2 or llama", o.arch)
	case o.load == "" && o.dim%o.heads != 0:
		return fmt.Errorf("-heads: got %d with -dim %d, want a divisor", o.heads, o.dim)
	case o.load == "" && o.heads%o.kvHeads != 0:
		return fmt.Errorf("-kv-heads: got %d with -heads %d, want a divisor", o.kvHeads, o.heads)
	case o.load == "" && o.arch == "gpt2" && o.kvHeads != o.heads:
		return fmt.Errorf("-kv-heads: got %d with -heads %d, want as many with gpt2", o.kvHeads, o.heads)
	}
	if !o.ownSeq {
		if err := o.checkPrompts(); err != nil {
			return err
		}
	}
	if o.load == "" {
		if err := o.config().Validate(); err != nil {
			return err
		}
	}
	if o.out != "" && (o.train || o.compare) {
		if err := aside.CheckFolder(o.out); err != nil {
			return fmt.Errorf("-out: %w", err)
		}
	}
	if err := o.checkCodes(given); err != nil {
		return err
	}
	if o.saveQuantized != "" && o.weights == stheno.F32 {
		return fmt.Errorf("-save-quantized: got %s without -weights, want a precision other than f32", o.saveQuantized)
	}
	if o.saveQuantized != "" && o.save != "" && sameFile(o.saveQuantized, o.save) {
		return fmt.Errorf("-save-quantized: got %s, which -save writes the weights to, want another file", o.saveQuantized)
	}
	for _, f := range []struct{ name, path string }{{"-save", o.save}, {"-save-quantized", o.saveQuantized}} {
		if f.path == "" {
			continue
		}
		if err := aside.CheckFile(f.path); err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// checkCodes reports what keeps -rounding and -qat from what -weights says.
func (o options) checkCodes(given map[string]bool) error {
	const want = "-weights int8, int8-dynamic, int4 or int4-dynamic"
	for _, name := range []string{"rounding", "qat"} {
		switch {
		case !given[name] || hasCodes(o.weights):
		case !given["weights"]:
			return fmt.Errorf("-%s: got it without -weights, want it with %s", name, want)
		default:
			return fmt.Errorf("-%s: got it with -weights %v, want it with %s", name, o.weights, want)
		}
	}
	switch {
	case given["qat"] && (o.qat < 1 || o.qat > maxFurther):
		return fmt.Errorf("-qat: got %d, want 1 to %d steps", o.qat, maxFurther)
	case o.qat > 0 && o.rounding == quantize.GPTQ:
		return fmt.Errorf("-rounding: got %v with -qat, want %v or %v: there is no training through %v", o.rounding, quantize.Nearest, quantize.Clipped, o.rounding)
	case given["qat-rate"] && !given["qat"]:
		return fmt.Errorf("-qat-rate: got %v without -qat, want both", o.qatRate)
	case !(o.qatRate > 0) || math.IsInf(o.qatRate, 0):
		return fmt.Errorf("-qat-rate: got %v, want a positive number", o.qatRate)
	}
	return nil
}

// checkPrompts reports a prompt that -seq has no room for.
func (o options) checkPrompts() error {
	for _, p := range o.prompts {
		if len(p) == 0 || len(p) >= o.seq {
			return fmt.Errorf("-prompt %q: got %d bytes, want 1 to %d, less than -seq", p, len(p), o.seq-1)
		}
	}
	return nil
}

// config is the shape of a new model.
func (o options) config() stheno.Config {
	if o.arch == "gpt2" {
		return stheno.GPT2(vocab, o.layers, o.dim, o.heads, o.seq)
	}
	return stheno.Llama(vocab, o.layers, o.dim, o.heads, o.kvHeads, o.seq)
}

// sameFile reports whether two paths name one file, which need not exist.
func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	if errX == nil && errY == nil {
		return os.SameFile(x, y)
	}
	return filepath.Clean(a) == filepath.Clean(b)
}
