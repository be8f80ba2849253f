//go:build race

package stheno

const raceEnabled = true
