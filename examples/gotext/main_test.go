package main

import (
	"bytes"
	"context"
	"image/png"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"stheno"
)

// TestMain lets the test binary stand for the program where that starts itself to measure.
func TestMain(m *testing.M) {
	if request := os.Getenv(measureEnv); request != "" {
		os.Exit(measureMain(request, os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// tiny are the flags of a run that takes a moment.
var tiny = []string{
	"-layers", "1", "-dim", "16", "-heads", "2", "-seq", "32", "-batch", "2", "-tokens", "8", "-prompt", "func ", "-prompt", "x",
}

// writeText makes a directory with a little text in some files.
func writeText(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"a.go", "b.go", "sub/c.txt", "sub/d.md"} {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		text := strings.Repeat("func read(p []byte) (n int, err error) { return "+name+" }\n", 20)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
	}
	return dir
}

// start runs the program on tiny and args.
func start(t *testing.T, ctx context.Context, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	threads := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(threads)
	var out, errs bytes.Buffer
	code = run(ctx, args, &out, &errs)
	return code, out.String(), errs.String()
}

func with(args ...string) []string { return append(append([]string(nil), tiny...), args...) }

func requirePNG(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	img, err := png.Decode(f)
	require.NoError(t, err)
	require.Greater(t, img.Bounds().Dx(), 500)
	colours := map[any]bool{}
	for x := range img.Bounds().Dx() {
		colours[img.At(x, img.Bounds().Dy()/2)] = true
	}
	require.Greater(t, len(colours), 2, "%s is blank", path)
}

func TestTrainsCompletesAndCompares(t *testing.T) {
	for _, arch := range []string{"gpt2", "llama"} {
		t.Run(arch, func(t *testing.T) {
			dir := t.TempDir()
			save, out := filepath.Join(dir, "w.safetensors"), filepath.Join(dir, "pictures")
			code, stdout, stderr := start(t, t.Context(),
				with("-arch", arch, "-data", writeText(t), "-steps", "5", "-save", save, "-out", out, "-threads", "1")...)
			require.Zero(t, code, stderr)
			for _, want := range []string{
				"training    5 steps", "bits per byte; gzip -9", "\nfunc ", "plain Gorgonia", "training step", "prefill", "generate",
				"peak memory, training", "peak memory, inference", "held-out bits per byte", "largest logit difference",
			} {
				require.Contains(t, stdout, want)
			}
			require.NotContains(t, stdout, "not measured")
			require.Contains(t, stderr, "step 5 of 5: loss ")
			requirePNG(t, filepath.Join(out, "loss.png"))
			requirePNG(t, filepath.Join(out, "comparison.png"))
			require.Equal(t, []string{"pictures", "w.safetensors"}, namesIn(t, dir))
			require.Equal(t, []string{"comparison.png", "loss.png"}, namesIn(t, out))

			m, err := stheno.Load(save)
			require.NoError(t, err)
			require.Equal(t, 16, m.Config().Dim)
		})
	}
}

func namesIn(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestSameSeedSameText(t *testing.T) {
	data := writeText(t)
	var texts []string
	for range 2 {
		code, stdout, stderr := start(t, t.Context(), with("-data", data, "-steps", "3", "-compare=false", "-out", "", "-seed", "7")...)
		require.Zero(t, code, stderr)
		texts = append(texts, stdout)
	}
	require.Equal(t, texts[0], texts[1])
}

func TestLoadsWhatItSaved(t *testing.T) {
	data, path := writeText(t), filepath.Join(t.TempDir(), "w.safetensors")
	args := []string{"-data", data, "-seq", "32", "-batch", "2", "-tokens", "8", "-prompt", "func ", "-compare=false", "-out", ""}
	code, trained, stderr := start(t, t.Context(), with("-data", data, "-steps", "4", "-save", path, "-compare=false", "-out", "")...)
	require.Zero(t, code, stderr)
	code, loaded, stderr := start(t, t.Context(), append(args, "-load", path)...)
	require.Zero(t, code, stderr)
	require.NotContains(t, loaded, "training")
	_, want, _ := strings.Cut(trained, "held out    ")
	_, got, _ := strings.Cut(loaded, "held out    ")
	line := func(s string) string { return s[:strings.IndexByte(s, '\n')] }
	require.Equal(t, line(want), line(got))

	code, own, stderr := start(t, t.Context(), "-data", data, "-tokens", "8", "-prompt", "func ", "-compare=false", "-out", "", "-load", path)
	require.Zero(t, code, stderr)
	require.Equal(t, loaded, own, "without -seq the context is the model's")

	code, further, stderr := start(t, t.Context(), append(args, "-load", path, "-steps", "2", "-save", path)...)
	require.Zero(t, code, stderr)
	require.Contains(t, further, "training    2 steps")
}

// TestComparesWithoutPlainNodes: a model that plain nodes cannot compose is trained, measured and shown all the same.
func TestComparesWithoutPlainNodes(t *testing.T) {
	cfg := stheno.GPT2(vocab, 1, 16, 2, 32)
	cfg.Activation = stheno.GELU
	m, err := stheno.NewModel(cfg, 1)
	require.NoError(t, err)
	path := filepath.Join(t.TempDir(), "exact.safetensors")
	require.NoError(t, m.Save(path))
	code, stdout, stderr := start(t, t.Context(), "-data", writeText(t), "-batch", "2", "-tokens", "8", "-prompt", "func ", "-out", "",
		"-load", path, "-steps", "2")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "This model is not measured on plain nodes: stheno: Plain nodes: got activation gelu")
	require.Contains(t, stdout, "generate")
}

// TestPrecisions: a quantized run completes with what was asked for, saves it, and shows a row for every precision.
func TestPrecisions(t *testing.T) {
	data, dir := writeText(t), t.TempDir()
	path := filepath.Join(dir, "q.safetensors")
	code, stdout, stderr := start(t, t.Context(), with("-data", data, "-steps", "3", "-out", "", "-weights", "int8", "-kv", "int4",
		"-kv-recent", "16", "-save-quantized", path)...)
	require.Zero(t, code, stderr)
	for _, want := range []string{"quantized   weights int8: ", "weights f16 ", "weights int4-dynamic ", "cache int8 ", "all: ", "as asked for", "bits/token"} {
		require.Contains(t, stdout, want)
	}
	m, err := stheno.Load(path)
	require.NoError(t, err)
	require.True(t, m.Quantized())

	code, stdout, stderr = start(t, t.Context(), "-data", data, "-load", path, "-tokens", "8", "-prompt", "func ", "-out", "")
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "The loaded weights are quantized")

	code, stdout, stderr = start(t, t.Context(), with("-data", data, "-steps", "3", "-out", "", "-compare=false", "-weights", "auto")...)
	require.Zero(t, code, stderr)
	require.Contains(t, stdout, "planned     ")
	require.Contains(t, stdout, "quantized   weights auto: ")

	for want, args := range map[string][]string{
		`-weights: stheno: precision: got "int5"`: with("-weights", "int5"),
		"-kv: stheno: KVConfig":                   with("-kv", "bf16"),
		"-kv-recent: got 0":                       with("-kv", "int8", "-kv-recent", "0"),
		"without -weights":                        with("-save-quantized", path),
		"which -save writes the weights to":       with("-weights", "int8", "-save", filepath.Join(dir, "one"), "-save-quantized", dir+"/./one"),
		"got a quantized model with -steps":       {"-data", data, "-load", path, "-steps", "2"},
	} {
		code, _, stderr := start(t, t.Context(), args...)
		require.NotZero(t, code)
		require.Contains(t, stderr, want)
		require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}

// cancelOn is a writer that cancels a context when it sees a word.
type cancelOn struct {
	mu     sync.Mutex
	buf    bytes.Buffer
	word   string
	cancel context.CancelFunc
}

func (w *cancelOn) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if strings.Contains(w.buf.String(), w.word) {
		w.cancel()
	}
	return len(p), nil
}

func TestInterruptSavesAndShows(t *testing.T) {
	threads := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(threads)
	dir := t.TempDir()
	save, out := filepath.Join(dir, "w.safetensors"), filepath.Join(dir, "pictures")
	ctx, cancel := context.WithCancel(t.Context())
	var stdout bytes.Buffer
	stderr := &cancelOn{word: "step ", cancel: cancel}
	code := run(ctx, with("-data", writeText(t), "-steps", "400", "-save", save, "-out", out), &stdout, stderr)
	require.Equal(t, exitInterrupted, code, stderr.buf.String())
	require.Contains(t, stdout.String(), "bits per byte; gzip -9")
	require.Contains(t, stdout.String(), "\nfunc ")
	require.NotContains(t, stdout.String(), "plain Gorgonia")
	require.True(t, strings.HasSuffix(stderr.buf.String(), "gotext: stopped\n"))
	require.Equal(t, []string{"loss.png"}, namesIn(t, out))
	_, err := stheno.Load(save)
	require.NoError(t, err)
}

func TestShowsAlthoughSavingFails(t *testing.T) {
	threads := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(threads)
	dir := filepath.Join(t.TempDir(), "gone")
	require.NoError(t, os.Mkdir(dir, 0o777))
	var stdout bytes.Buffer
	stderr := &cancelOn{word: "step ", cancel: func() { os.RemoveAll(dir) }}
	code := run(t.Context(), with("-data", writeText(t), "-steps", "2", "-save", filepath.Join(dir, "w"), "-out", ""), &stdout, stderr)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr.buf.String(), "gotext: stheno: saving ")
	require.Contains(t, stdout.String(), "\nfunc ")
}

func TestInterruptDuringComparisonShowsWhatThereIs(t *testing.T) {
	threads := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(threads)
	ctx, cancel := context.WithCancel(t.Context())
	var stdout bytes.Buffer
	stderr := &cancelOn{word: "measuring", cancel: cancel}
	code := run(ctx, with("-data", writeText(t), "-steps", "2", "-out", ""), &stdout, stderr)
	require.Equal(t, exitInterrupted, code, stderr.buf.String())
	require.Contains(t, stdout.String(), "plain Gorgonia")
	require.Contains(t, stdout.String(), "not measured")
}

func TestInterruptBeforeTheFirstStepSavesNothing(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	code, _, stderr := start(t, ctx, with("-data", writeText(t), "-steps", "2", "-save", filepath.Join(dir, "w.safetensors"))...)
	require.Equal(t, exitInterrupted, code)
	require.Equal(t, "gotext: stopped\n", stderr)
	require.Empty(t, namesIn(t, dir))
}

func TestMistakesAreOneSentence(t *testing.T) {
	data, dir := writeText(t), t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
		return path
	}
	empty := filepath.Join(dir, "empty")
	require.NoError(t, os.Mkdir(empty, 0o777))
	small := filepath.Join(dir, "small")
	require.NoError(t, os.Mkdir(small, 0o777))
	write("small/a", "hello")
	binary := filepath.Join(dir, "binary")
	require.NoError(t, os.Mkdir(binary, 0o777))
	write("binary/a", strings.Repeat("\x00\x01", 4096))

	m, err := stheno.NewModel(stheno.GPT2(vocab, 1, 16, 2, 32), 1)
	require.NoError(t, err)
	good := filepath.Join(dir, "good.safetensors")
	require.NoError(t, m.Save(good))
	m, err = stheno.NewModel(stheno.GPT2(vocab, 1, 16, 2, 1<<16), 1)
	require.NoError(t, err)
	long := filepath.Join(dir, "long.safetensors")
	require.NoError(t, m.Save(long))
	whole, err := os.ReadFile(good)
	require.NoError(t, err)
	truncated := write("truncated.safetensors", string(whole[:len(whole)/2]))
	m, err = stheno.NewModel(stheno.GPT2(300, 1, 16, 2, 32), 1)
	require.NoError(t, err)
	words := filepath.Join(dir, "words.safetensors")
	require.NoError(t, m.Save(words))
	foreign := write("foreign.safetensors", "\x02\x00\x00\x00\x00\x00\x00\x00{}")
	before := namesIn(t, dir)

	type mistake struct {
		args []string
		want string
	}
	for name, c := range map[string]mistake{
		"no such directory":    {with("-data", filepath.Join(dir, "none")), "no such directory"},
		"a file for a folder":  {with("-data", good), "want a directory"},
		"no text at all":       {with("-data", empty), "got 0 bytes of text"},
		"too little text":      {with("-data", small), "got 5 bytes of text"},
		"binary files only":    {with("-data", binary), "got 0 bytes of text"},
		"context over text":    {with("-data", data, "-seq", "100000"), "-seq: got 100000"},
		"truncated checkpoint": {[]string{"-load", truncated, "-data", data, "-seq", "32"}, "truncated"},
		"foreign checkpoint":   {[]string{"-load", foreign, "-data", data, "-seq", "32"}, "not a checkpoint"},
		"no checkpoint":        {[]string{"-load", filepath.Join(dir, "none"), "-data", data}, "no such file"},
		"a checkpoint of words": {[]string{"-load", words, "-data", data, "-seq", "32"},
			"got a model of 300 tokens, want 256"},
		"context over checkpoint": {[]string{"-load", good, "-data", data, "-seq", "64"}, "want at most that"},
		"shape with a checkpoint": {[]string{"-load", good, "-dim", "64"}, "-dim with -load"},
		"heads that do not fit":   {with("-heads", "3"), "-heads: got 3 with -dim 16"},
		"kv-heads":                {with("-kv-heads", "3"), "-kv-heads: got 3 with -heads 2"},
		"kv-heads with gpt2":      {with("-arch", "gpt2", "-kv-heads", "1"), "want as many with gpt2"},
		"odd rotary heads":        {with("-dim", "10"), "HeadDim"},
		"no layers":               {with("-layers", "0"), "-layers: got 0"},
		"a negative width":        {with("-dim", "-8"), "-dim: got -8"},
		"no steps":                {with("-steps", "0"), "-steps: got 0"},
		"no kv-heads":             {with("-kv-heads", "0"), "-kv-heads: got 0"},
		"few tokens kept":         {with("-kv-keep", "7"), "-kv-keep: got 7, want 0 or 8 to"},
		"two caches":              {with("-kv-keep", "64", "-kv", "int8"), "-kv-keep: got 64 with -kv int8, want one of them"},
		"endless minutes":         {with("-minutes", "1e300"), "-minutes: got 1e+300"},
		"drawing over a file":     {with("-data", data, "-steps", "1", "-out", good), "want a folder"},
		"drawing below a file":    {with("-data", data, "-steps", "1", "-out", filepath.Join(good, "x")), "-out: "},
		"memory with checkpoint":  {[]string{"-load", long, "-data", data, "-steps", "1", "-batch", "65536"}, "GiB"},
		"prompt over checkpoint":  {[]string{"-load", good, "-data", data, "-prompt", strings.Repeat("x", 40)}, "got 40 bytes, want 1 to 31"},
		"no minutes":              {with("-minutes", "NaN"), "-minutes: got NaN"},
		"an infinite rate":        {with("-rate", "Inf"), "-rate: got +Inf"},
		"cold":                    {with("-temperature", "-1"), "-temperature: got -1"},
		"too many threads":        {with("-threads", "100000"), "-threads: got 100000"},
		"more than memory":        {with("-layers", "8", "-dim", "65536", "-heads", "256", "-data", data), "GiB"},
		"unknown architecture":    {with("-arch", "rnn"), `-arch: got "rnn"`},
		"an empty prompt":         {with("-prompt", ""), "got 0 bytes"},
		"a long prompt":           {with("-prompt", strings.Repeat("x", 40)), "got 40 bytes, want 1 to 31"},
		"an unknown flag":         {with("-wings", "2"), "-wings"},
		"not a number":            {with("-dim", "wide"), `"wide"`},
		"an argument":             {with("file.txt"), `"file.txt"`},
		"saving to nowhere":       {with("-data", data, "-save", filepath.Join(dir, "none", "w")), "-save: "},
		"saving to a directory":   {with("-data", data, "-save", dir), "want a file"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := start(t, t.Context(), c.args...)
			require.NotZero(t, code)
			require.NotEqual(t, exitInterrupted, code)
			require.Empty(t, stdout)
			require.Contains(t, stderr, c.want)
			require.True(t, strings.HasPrefix(stderr, "gotext: "), stderr)
			require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
			require.Equal(t, before, namesIn(t, dir), "something was written")
		})
	}
}

func TestNoSourceUnderGOROOT(t *testing.T) {
	t.Setenv("GOROOT", t.TempDir())
	code, _, stderr := start(t, t.Context(), tiny...)
	require.Equal(t, exitFailed, code)
	require.Contains(t, stderr, "no Go source text under GOROOT")
	require.Contains(t, stderr, "-data DIR")
	require.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
}

func TestHelpNamesEveryFlag(t *testing.T) {
	code, stdout, stderr := start(t, t.Context(), "-h")
	require.Zero(t, code)
	require.Empty(t, stderr)
	for _, name := range []string{"data", "steps", "layers", "dim", "heads", "kv-heads", "seq", "arch", "weights", "rounding", "qat", "qat-rate", "save", "load", "prompt", "threads", "seed"} {
		require.Contains(t, stdout, "\n  -"+name+" ")
	}
}
