# A server, three devices, five rounds; one device dies, another joins, and a camera loop follows the models. Two to four minutes.
set -eu
[ -z "${FACES:-}" ] || [ -d faces1 ] || fl-sim deal "$FACES" faces --devices 4 --count 300 --alpha 2   # real crops
for i in 1 2 3 4; do                             # or folders of your own: faces1/<emotion>/*.png
  [ -d faces$i ] || fl-sim draw faces$i --people 2 --seed $i --count 140
done
[ -e film.mp4 ] || fl-sim scene film.mp4         # or --source 0 below, for a camera
printf '[model]\nname = "mobilenet_v2_tiny_128"\nstem_stride = 2\n[train]\nlocal_steps = 4\n' > fl.toml
done_rounds() { fl-server status --dir srv --json | sed -n 's/^ *"round": *\([0-9][0-9]*\).*/\1/p' | grep . || echo 0; }

fl-server start --dir srv --host 127.0.0.1 --port "${PORT:-8443}" --rounds 5 --round-timeout 60 --config fl.toml > server.log 2>&1 &
until fl-server status --dir srv --json | grep -q '"port": [0-9]'; do sleep 1; done          # it listens
fl-client --data faces1 --name dev1 > dev1.log 2>&1 &      # same user, same machine: no code
dev1=$!
fl-client --data faces2 --name dev2 > dev2.log 2>&1 &
dev2=$!
fl-server invite --dir srv | fl-client --data faces3 --name dev3 --join - > dev3.log 2>&1 &   # as from another machine

until [ "$(done_rounds)" -ge 1 ]; do sleep 1; done
fl-client webcam --registry faces2/.emofl/registry --source film.mp4 --loop --headless --csv seen.csv > webcam.log 2>&1 &
webcam=$!
until [ "$(done_rounds)" -ge 2 ]; do sleep 1; done
kill -9 $dev1                                    # a device dies; the round goes on without it, or is lost
fl-client --data faces4 --name dev4 > dev4.log 2>&1 &      # another joins while rounds run
dev4=$!
until [ "$(done_rounds)" -ge 5 ]; do sleep 1; done

fl-server devices --dir srv
fl-server models list srv/registry
fl-client privacy --data faces2                  # what it has cost, and what is left
sleep 5
kill -TERM $webcam && wait $webcam || true
fl-server revoke dev3 --dir srv                  # within a few seconds it says so and exits with 11
sleep 8
fl-server stop --dir srv
for i in 2 4; do fl-client privacy --data faces$i --verify; done
kill -TERM $dev2 $dev4 || true                   # they would wait for the server to come back
