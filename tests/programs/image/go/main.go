// The tests' counter as a Go server that does nothing about its sockets: since Go 1.24 they are MPTCP where the kernel
// has it.
package main

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"runtime"
	"sync"
)

func main() {
	var (
		guard  sync.Mutex
		count  uint64
		chain  [32]byte
		cookie = rand.Text()
	)
	log.Fatal(http.ListenAndServe(":8080", http.HandlerFunc(func(answer http.ResponseWriter, request *http.Request) {
		body, err := io.ReadAll(request.Body)
		if err != nil {
			return
		}
		guard.Lock()
		defer guard.Unlock()
		if request.Method == http.MethodPost {
			count++
			chain = sha256.Sum256(append(chain[:], body...))
		}
		_ = json.NewEncoder(answer).Encode(map[string]any{
			"count": count, "chain": hex.EncodeToString(chain[:]), "cookie": cookie, "processors": runtime.GOMAXPROCS(0)})
	})))
}
