// Greets whom its input names. Each call has a process of its own.
package main

import (
	"fmt"
	"io"
	"log"
	"os"
	"strings"
)

func greeting(name string) string {
	name = strings.TrimSpace(name)
	if name == "" {
		name = "World"
	}
	return "Hello, " + name + "!"
}

func main() {
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(greeting(string(body)))
}
