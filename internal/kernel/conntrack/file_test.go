package conntrack

// Read is that of the calling thread's namespace.
func Read() (*Table, error) {
	f, err := Open("/proc")
	if f == nil || err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Read()
}
