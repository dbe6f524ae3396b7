package diagnose

import "linger/internal/tcp"

// share is how many percent of a whole a part is; of nothing it is nothing.
func share(part, whole float64) float64 {
	if whole <= 0 {
		return 0
	}
	return 100 * part / whole
}

// way writes the two ends of a connector's connections.
func way(local, remote tcp.Endpoint) string { return local.String() + " → " + remote.String() }
