// Asks with net/http, which knows of Sidekey from its environment alone. See `harness/probe.py`.
package main

import (
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"time"
)

func main() {
	http.DefaultClient.Timeout = 20 * time.Second
	for _, argument := range os.Args[1:] {
		url, host, _ := strings.Cut(argument, " ")
		json.NewEncoder(os.Stdout).Encode(ask(url, host))
	}
}

func ask(url, host string) map[string]any {
	request, err := http.NewRequest("GET", url, nil)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	request.Header.Set("Authorization", "Bearer "+os.Getenv("TOKEN"))
	if host != "" {
		request.Host = host
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return map[string]any{"error": err.Error()}
	}
	return map[string]any{"status": answer.StatusCode, "text": string(text)}
}
