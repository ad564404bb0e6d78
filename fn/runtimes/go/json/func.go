// Greets whom a call's body names: a line of JSON per call, and a line per answer.
package main

import (
	"encoding/json"
	"io"
	"log"
	"os"
	"strings"
)

type call struct {
	Body string `json:"body"`
}

type answer struct {
	ContentType string `json:"content_type"`
	Body        string `json:"body"`
}

func greeting(name string) string {
	name = strings.TrimSpace(name)
	if name == "" {
		name = "World"
	}
	return "Hello, " + name + "!\n"
}

func main() {
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var c call
		if err := in.Decode(&c); err == io.EOF {
			return
		} else if err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(answer{"text/plain", greeting(c.Body)}); err != nil {
			log.Fatal(err)
		}
	}
}
