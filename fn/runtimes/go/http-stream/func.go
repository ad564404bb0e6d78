// Greets whom a call's body names, over HTTP on the unix socket that FN_LISTENER names.
package main

import (
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
)

func greeting(name string) string {
	name = strings.TrimSpace(name)
	if name == "" {
		name = "World"
	}
	return "Hello, " + name + "!\n"
}

func handle(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	w.Header().Set("Content-Type", "text/plain")
	w.Header().Set("Fn-Http-Status", "200")
	io.WriteString(w, greeting(string(body)))
}

// The socket gets its name when others may connect to it, and not before.
func listen(path string) (net.Listener, error) {
	listener, err := net.Listen("unix", path+".new")
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path+".new", 0o666); err != nil {
		return nil, err
	}
	return listener, os.Rename(path+".new", path)
}

func main() {
	listener, err := listen(strings.TrimPrefix(os.Getenv("FN_LISTENER"), "unix:"))
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(handle)))
}
