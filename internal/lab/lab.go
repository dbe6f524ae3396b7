// Package lab builds each problem for real, in network namespaces that it makes
// itself and that are gone with it, and fills namespaces with TIME_WAIT sockets. It
// refuses to write a setting or send a packet anywhere else.
package lab
