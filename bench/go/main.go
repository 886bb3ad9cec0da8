// The loop that bench/measure.py runs for Python clients, for franz-go: warm-up, then the measured records with a
// promise on each, then flush. Prints one JSON line.
//
//	franz-go TOPIC RECORDS WARMUP BLOCK RATE FILE
//
// The first record of each block is timed; with a rate (records per second, 0: no limit) a block is a burst, and every
// record is timed. FILE has lines of key TAB value; standard input has the settings as JSON.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

type settings struct {
	Bootstrap     string `json:"bootstrap"`
	LingerMs      int    `json:"linger_ms"`
	BatchMaxBytes int32  `json:"batch_max_bytes"`
	Codec         string `json:"codec"`
}

type result struct {
	Acked         int     `json:"acked"`
	Failed        int     `json:"failed"`
	Error         string  `json:"error"`
	Seconds       float64 `json:"seconds"`
	UserSeconds   float64 `json:"user_seconds"`
	SystemSeconds float64 `json:"system_seconds"`
	RSS           int64   `json:"rss"`
	PeakRSS       int64   `json:"peak_rss"`
	LatenciesNs   []int64 `json:"latencies_ns"`
}

type pair struct{ key, value []byte }

var codecs = map[string]kgo.CompressionCodec{
	"none":   kgo.NoCompression(),
	"gzip":   kgo.GzipCompression(),
	"snappy": kgo.SnappyCompression(),
	"lz4":    kgo.Lz4Compression(),
	"zstd":   kgo.ZstdCompression(),
}

func fail(format string, arguments ...any) {
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
	os.Exit(1)
}

func number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		fail("%v", err)
	}
	return n
}

func readPool(path string) []pair {
	content, err := os.ReadFile(path)
	if err != nil {
		fail("%v", err)
	}
	var pool []pair
	for line := range bytes.Lines(content) {
		key, value, found := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("\t"))
		if !found {
			fail("%s: line %d is not \"key TAB value\"", path, len(pool)+1)
		}
		if len(key) == 0 {
			key = nil
		}
		pool = append(pool, pair{key, value})
	}
	if len(pool) == 0 {
		fail("%s: no records", path)
	}
	return pool
}

// Idempotence is kgo's default, and so is murmur2 for keys.
func newClient(topic string) *kgo.Client {
	var asked settings
	if err := json.NewDecoder(os.Stdin).Decode(&asked); err != nil {
		fail("settings: %v", err)
	}
	codec, known := codecs[asked.Codec]
	if !known {
		fail("no codec %q", asked.Codec)
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(strings.Split(asked.Bootstrap, ",")...),
		kgo.DefaultProduceTopic(topic),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(time.Duration(asked.LingerMs)*time.Millisecond),
		kgo.ProducerBatchMaxBytes(asked.BatchMaxBytes),
		kgo.ProducerBatchCompression(codec),
		kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)),
	)
	if err != nil {
		fail("%v", err)
	}
	return client
}

// Promises are called one after another, so that what they write needs no lock; Flush returns after the last.
func (r *result) delivered(_ *kgo.Record, err error) {
	if err == nil {
		r.Acked++
	} else {
		r.Failed++
		r.Error = err.Error()
	}
}

func (r *result) sendAll(client *kgo.Client, pool []pair, records, block, rate int) {
	ctx := context.Background()
	delivered := r.delivered
	start := time.Now()
	for i := range records {
		at := &pool[i%len(pool)]
		first := i%block == 0
		if rate > 0 && first {
			time.Sleep(time.Until(start.Add(time.Duration(i) * time.Second / time.Duration(rate))))
		}
		record := &kgo.Record{Key: at.key, Value: at.value}
		if rate > 0 || first {
			since := time.Now()
			client.Produce(ctx, record, func(record *kgo.Record, err error) {
				r.LatenciesNs = append(r.LatenciesNs, int64(time.Since(since)))
				delivered(record, err)
			})
		} else {
			client.Produce(ctx, record, delivered)
		}
	}
	if err := client.Flush(ctx); err != nil {
		fail("flush: %v", err)
	}
}

func cpu() (user, system float64) {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		fail("getrusage: %v", err)
	}
	return time.Duration(usage.Utime.Nano()).Seconds(), time.Duration(usage.Stime.Nano()).Seconds()
}

func resident(field string) int64 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		fail("%v", err)
	}
	found := regexp.MustCompile(`(?m)^` + field + `:\s+(\d+) kB$`).FindSubmatch(status)
	if found == nil {
		fail("no %s in /proc/self/status", field)
	}
	return int64(number(string(found[1]))) * 1024
}

func main() {
	if len(os.Args) != 7 {
		fail("usage: franz-go TOPIC RECORDS WARMUP BLOCK RATE FILE")
	}
	records, warmup, block, rate := number(os.Args[2]), number(os.Args[3]), number(os.Args[4]), number(os.Args[5])
	pool := readPool(os.Args[6])
	client := newClient(os.Args[1])
	var found result
	found.sendAll(client, pool, warmup, block, 0)
	found.LatenciesNs = make([]int64, 0, 1<<16)

	userBefore, systemBefore := cpu()
	start := time.Now()
	found.sendAll(client, pool, records, block, rate)
	found.Seconds = time.Since(start).Seconds()
	user, system := cpu()
	found.UserSeconds, found.SystemSeconds = user-userBefore, system-systemBefore
	found.RSS, found.PeakRSS = resident("VmRSS"), resident("VmHWM")

	if err := json.NewEncoder(os.Stdout).Encode(&found); err != nil {
		fail("%v", err)
	}
	client.Close()
}
