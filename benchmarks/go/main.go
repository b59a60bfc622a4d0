// Hello, World by fasthttp: the package that prefork is modelled on, under its own prefork or alone.
//
//	serve -addr 127.0.0.1:8080 [-reuseport] [-alone] [-sleep-ms 100]
//
// As many children as GOMAXPROCS says. Without -reuseport they share one listener, which is fasthttp's default.
package main

import (
	"flag"
	"log"
	"time"

	"github.com/valyala/fasthttp"
	"github.com/valyala/fasthttp/prefork"
)

func main() {
	addr := flag.String("addr", "127.0.0.1:8080", "address to listen on")
	reuseport := flag.Bool("reuseport", false, "one listening socket for each child")
	alone := flag.Bool("alone", false, "one process, no prefork")
	sleepMs := flag.Int("sleep-ms", 0, "how long the handler sleeps")
	flag.Parse()

	pause := time.Duration(*sleepMs) * time.Millisecond
	server := &fasthttp.Server{Handler: func(ctx *fasthttp.RequestCtx) {
		if pause > 0 {
			time.Sleep(pause)
		}
		ctx.SetContentType("text/plain")
		ctx.SetBodyString("Hello, World!")
	}}
	if *alone {
		log.Fatal(server.ListenAndServe(*addr))
	}
	master := prefork.New(server)
	master.Reuseport = *reuseport
	log.Fatal(master.ListenAndServe(*addr))
}
