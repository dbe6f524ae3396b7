//go:build race

package lab_test

// The race detector takes several times the memory.
const raceEnabled = true
