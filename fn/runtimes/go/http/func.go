// Greets whom a call's body names: an HTTP request per call, and a response per answer.
package main

import (
	"bufio"
	"io"
	"log"
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

func main() {
	in := bufio.NewReader(os.Stdin)
	for {
		call, err := http.ReadRequest(in)
		if err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		body, err := io.ReadAll(call.Body)
		if err != nil {
			log.Fatal(err)
		}
		text := greeting(string(body))
		answer := http.Response{
			StatusCode:    200,
			ProtoMajor:    1,
			ProtoMinor:    1,
			Header:        http.Header{"Content-Type": {"text/plain"}},
			ContentLength: int64(len(text)),
			Body:          io.NopCloser(strings.NewReader(text)),
		}
		if err := answer.Write(os.Stdout); err != nil {
			log.Fatal(err)
		}
	}
}
