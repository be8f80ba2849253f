// Package tensorfile writes and reads safetensors files, whole or not at all: a file that is written appears under its name only
// when it is complete, and one that is read is held to its own header before anything is made of it.
package tensorfile
