// A relay with one goroutine and one io.Copy for each direction: the data path of kube-proxy's old
// userspace mode. On Linux io.Copy between two TCP connections is splice(2).
//
// Usage: relay LISTEN BACKEND [LISTEN BACKEND ...]; GOMAXPROCS limits its threads.
package main

import (
	"io"
	"log"
	"net"
	"os"
	"sync"
	"time"
)

func main() {
	places := os.Args[1:]
	if len(places) == 0 || len(places)%2 != 0 {
		log.Fatal("usage: relay LISTEN BACKEND [LISTEN BACKEND ...]")
	}
	for i := 0; i < len(places); i += 2 {
		listener, err := net.Listen("tcp", places[i])
		if err != nil {
			log.Fatal(err)
		}
		go serve(listener, places[i+1])
	}
	select {}
}

func serve(listener net.Listener, backend string) {
	for {
		client, err := listener.Accept()
		if err != nil {
			// No descriptor is free; one may be when a connection has ended.
			log.Print(err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go relay(client.(*net.TCPConn), backend)
	}
}

func relay(client *net.TCPConn, backend string) {
	defer client.Close()
	dialed, err := net.Dial("tcp", backend)
	if err != nil {
		log.Print(err)
		return
	}
	server := dialed.(*net.TCPConn)
	defer server.Close()
	var both sync.WaitGroup
	both.Add(2)
	go forward(server, client, &both)
	go forward(client, server, &both)
	both.Wait()
}

func forward(to, from *net.TCPConn, both *sync.WaitGroup) {
	defer both.Done()
	_, _ = io.Copy(to, from)
	_ = to.CloseWrite()
	_ = from.CloseRead()
}
