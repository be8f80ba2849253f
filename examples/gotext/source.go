package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// openText reads the text under dir, or the standard library's source if dir is empty.
func openText(ctx context.Context, dir string) (corpus, error) {
	if dir != "" {
		sel := anyText
		sel.name = dir
		return readDir(dir, sel)
	}
	root, err := goRoot(ctx)
	if err != nil {
		return corpus{}, err
	}
	sel := goSource
	sel.name = "the Go standard library"
	c, err := readDir(filepath.Join(root, "src"), sel)
	if err != nil {
		return c, fmt.Errorf("no Go source text under GOROOT (%w): -data DIR trains on other text", err)
	}
	return c, nil
}

func readDir(dir string, sel selection) (corpus, error) {
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return corpus{}, fmt.Errorf("%s: got no such directory", dir)
	case err != nil:
		return corpus{}, err
	case !info.IsDir():
		return corpus{}, fmt.Errorf("%s: got a file, want a directory", dir)
	}
	return readCorpus(os.DirFS(dir), sel)
}

// goRoot asks the go command, which knows where its source is even when no variable says so.
func goRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	root := strings.TrimSpace(string(out))
	if err != nil || root == "" {
		root = os.Getenv("GOROOT")
	}
	if root == "" {
		return "", errors.New("got no GOROOT from \"go env GOROOT\" or the environment: -data DIR trains on other text")
	}
	return root, nil
}
