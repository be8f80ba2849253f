package main

import (
	"fmt"
	"time"
)

// count writes a number with three digits: 942, 12.3 k, 1.84 M.
func count(n int64) string {
	x, unit := float64(n), ""
	for _, next := range []string{" k", " M", " G", " T"} {
		if x < 1000 {
			break
		}
		x, unit = x/1000, next
	}
	switch {
	case unit == "":
		return fmt.Sprint(n)
	case x < 9.995:
		return fmt.Sprintf("%.2f%s", x, unit)
	case x < 99.95:
		return fmt.Sprintf("%.1f%s", x, unit)
	}
	return fmt.Sprintf("%.0f%s", x, unit)
}

// memory writes a number of bytes.
func memory(n int64) string {
	if n < 10<<20 {
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%d MiB", n>>20)
}

// bytesOf writes a size of text; files is 0 where it makes no whole files.
func bytesOf(n, files int) string {
	size := count(int64(n)) + "B"
	if n < 1000 {
		size = count(int64(n)) + " B"
	}
	switch files {
	case 0:
		return size
	case 1:
		return size + " in 1 file"
	}
	return fmt.Sprintf("%s in %d files", size, files)
}

// roundly writes a duration without digits that nobody reads.
func roundly(d time.Duration) string {
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

// milliseconds writes a time that is given in seconds.
func milliseconds(s float64) string {
	if s >= 1 {
		return fmt.Sprintf("%.2f s", s)
	}
	return fmt.Sprintf("%.1f ms", s*1e3)
}
