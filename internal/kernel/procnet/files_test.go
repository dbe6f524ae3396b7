package procnet

// ReadSockstat is that of the calling thread's namespace.
func ReadSockstat() (Sockstat, error) {
	files := Open("/proc")
	defer files.Close()
	return files.Sockstat()
}
