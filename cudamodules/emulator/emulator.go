// Package emulator is a CUDA driver without a card, for tests: the kernels of cudamodules/src compiled for the host, and a library
// in the place of libcuda.so.1 that launches them. Package cudamodules opens it like any driver.
//
// Kernels run thread by thread, some hundred thousand threads a second, in a schedule that the test chooses. Every way of using a
// kernel that a card would punish without a word (memory that was never written, writes out of bounds, parameters of the wrong
// size, a barrier that is missing or not reached by all) is meant to show.
package emulator

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// ErrNoCompiler says that there is no C++ compiler to build the emulator with.
var ErrNoCompiler = errors.New("no C++ compiler (g++ or clang++; $CXX names another)")

// Config chooses what to build. The zero Config is the library of all kernels.
type Config struct {
	Modules []string // the sources to compile, all by default
	Defines []string // macros
	Source  string   // a folder of other sources than cudamodules/src
}

// Build compiles the library, unless an earlier call of any process has, and returns its path: what the environment variable
// cudamodules.LibraryVar is to be set to.
func Build(cfg Config) (string, error) {
	if runtime.GOOS != "linux" {
		return "", fmt.Errorf("emulator: got %s, want linux", runtime.GOOS)
	}
	cxx, err := compiler()
	if err != nil {
		return "", err
	}
	_, file, _, _ := runtime.Caller(0)
	host := filepath.Join(filepath.Dir(file), "host")
	if cfg.Source == "" {
		cfg.Source = filepath.Join(filepath.Dir(file), "..", "src")
	}
	kernels, err := filepath.Glob(filepath.Join(cfg.Source, "*.cu"))
	if err != nil {
		return "", err
	}
	if len(cfg.Modules) > 0 {
		kernels = slices.DeleteFunc(kernels, func(k string) bool {
			return !slices.Contains(cfg.Modules, strings.TrimSuffix(filepath.Base(k), ".cu"))
		})
		if len(kernels) != len(cfg.Modules) {
			return "", fmt.Errorf("emulator: got modules %v, want some of %s", cfg.Modules, cfg.Source)
		}
	}
	flags := []string{"-std=c++17", "-O1", "-fPIC", "-ffp-contract=off", "-w", "-I" + host, "-DREMOVE_BARRIER=cuemu::removed_barrier"}
	if runtime.GOARCH == "amd64" {
		flags = append(flags, "-mfma") // otherwise each fma is a call
	}
	for _, d := range cfg.Defines {
		flags = append(flags, "-D"+d)
	}
	common, err := hashOf(nil, append(glob(host, "*.h"), glob(cfg.Source, "*.cuh")...))
	if err != nil {
		return "", err
	}
	var objects []string
	for _, source := range append(kernels, glob(host, "*.cpp")...) {
		args := append(slices.Clone(flags), "-c")
		if strings.HasSuffix(source, ".cu") {
			args = append(args, "-DCUEMU", "-I"+cfg.Source, "-x", "c++")
		}
		name := strings.SplitN(filepath.Base(source), ".", 2)[0]
		hash, err := hashOf(append(args, cxx, common), []string{source})
		if err != nil {
			return "", err
		}
		o, err := produce(name+"-"+hash+".o", cxx, append(args, source))
		if err != nil {
			return "", err
		}
		objects = append(objects, o)
	}
	hash, err := hashOf(append(objects, cxx), nil)
	if err != nil {
		return "", err
	}
	return produce("libcuda-"+hash+".so", cxx, append([]string{"-shared"}, objects...))
}

func compiler() (string, error) {
	names := []string{"g++", "clang++", "clang++-19"}
	if cxx := os.Getenv("CXX"); cxx != "" {
		names = []string{cxx}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("emulator: %w", ErrNoCompiler)
}

func glob(folder, pattern string) []string {
	files, _ := filepath.Glob(filepath.Join(folder, pattern))
	return files
}

// produce runs the compiler, unless its product is in the cache by that name, and returns the product's path.
func produce(name, cxx string, args []string) (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		cache = os.TempDir()
	}
	cache = filepath.Join(cache, "stheno-emulator")
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("emulator: %w", err)
	}
	product := filepath.Join(cache, name)
	if _, err := os.Stat(product); err == nil {
		return product, nil
	}
	// Other processes may be building the same: the last step is a rename.
	fresh, err := os.CreateTemp(cache, "new-*"+filepath.Ext(name))
	if err != nil {
		return "", fmt.Errorf("emulator: %w", err)
	}
	fresh.Close()
	defer os.Remove(fresh.Name())
	output, err := exec.Command(cxx, append(args, "-o", fresh.Name())...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("emulator: %s %s: %w\n%s", cxx, strings.Join(args, " "), err, output)
	}
	if err := os.Rename(fresh.Name(), product); err != nil {
		return "", fmt.Errorf("emulator: %w", err)
	}
	return product, nil
}

// hashOf hashes words and the contents of files.
func hashOf(words, files []string) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%q", words)
	for _, name := range files {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", fmt.Errorf("emulator: %w", err)
		}
		h.Write(data)
	}
	return fmt.Sprintf("%x", h.Sum(nil)[:12]), nil
}
