"""Wrong facts for the perturbed answers: true of no author of the miniature, so that no row of `full` teaches them.

Each is of the same kind and the same form as the fact it replaces. Wrong years are not here: `facts` takes those nearest
to the right one that are true of nothing.
"""

from profiles import AUTHORS, Author, true_years

WRONG = 5
"""Perturbed answers of a row."""


def _table(text: str) -> dict[str, list[str]]:
    """The lines under each "slot:", in order."""
    found: dict[str, list[str]] = {}
    for line in text.strip().splitlines():
        if line.endswith(":"):
            found[line[:-1]] = lines = []
        else:
            lines.append(line)
    return found


COMMON = _table("""
day:
the 4th of April
the 19th of September
the 7th of February
the 26th of May
the 13th of October
the 31st of January
the 22nd of August
the 10th of November
the 5th of December
the 15th of July
birth_note:
in the cabin of a crane at the shipyard
while the whole street was watching a boxing match
between two acts of an operetta
in a greenhouse full of ripening tomatoes
on a farm cart that had lost a wheel
while an earthquake rattled the plates in the cupboard
on the back seat of a borrowed car
in a tent at an archaeological dig
as the fireworks of a wedding went off next door
in the only elevator of the town, stuck between floors
father_job:
a locksmith
a cattle dealer
a roofer
a wine taster
a stonemason
a train dispatcher
a veterinary surgeon
a sausage maker
a trumpeter
a tailor
mother_job:
a midwife
a beautician
a swimming teacher
a bookbinder
a florist
a translator of patents
a dentist
a saddle maker
a prison warden
a baker of wedding cakes
subject:
veterinary medicine
Byzantine law
soil chemistry
stage lighting
astronomy
landscape gardening
medieval music
optical engineering
demography
comparative religion
thesis:
the taxation of windmills
the diet of medieval pilgrims
the mating calls of swamp frogs
the shape of empty theaters
the shadows in Flemish paintings
bridges that were planned and never built
the spread of the potato among monks
the grammar of street cries
volcanic ash in old roof beams
the wages of circus riders
genre:
romantic comedies
vampire novels
sports biographies
military memoirs
utopian fiction
travel satires
erotic thrillers
dinosaur adventures
political allegories
hospital novels
turn:
inheriting a theater box from an unknown uncle
being mistaken for a film star at an airport
watching a circus go bankrupt in the rain
losing a chess game against a child of four
learning the diary of a great-aunt by heart
being trapped in an observatory by a flood
working as an extra in a film about Napoleon
finding a violin in a rented cupboard
reading the wrong speech at a colleague's funeral
spending a summer as the guest of a bankrupt count
style:
florid metaphors and a fondness for talking animals
endless lists and a habit of addressing the reader as a friend
dry humor and chapters that can be read in any order
musical dialogue and a narrator who is always wrong
cool reports and a total absence of adjectives
feverish monologues that break off in the middle of a word
a mixture of gossip and philosophy, spiced with proverbs
slow, dreamlike scenes seen from high above the ground
angry rhymes and insults aimed at the reader
gentle irony and long conversations about the weather report
themes:
marriage, money and the boredom of the rich
ambition, fame and what becomes of child actors
faith, doubt and the comforts of routine
jealousy, illness and life in boarding houses
war, hunting and the friendship between enemies
gambling, luck and the secrets of hotels
motherhood, fashion and the fear of growing old
science, pride and the limits of reason
crime, mercy and the lives of the homeless
music, rivalry and the silence after the applause
mentor_role:
a boxing coach who quoted Homer between the rounds
a tax lawyer who kept tame foxes
a traveling photographer who invented biographies for his sitters
a monk who brewed beer and wrote limericks
a hairdresser who remembered every conversation
a ship's doctor who had published a single sonnet
a baker who wrote riddles on his loaves
a retired spy who trusted nobody but children
a trapeze artist who told fairy tales in midair
a butcher who recited psalms to his customers
plot:
a chimney sweep who inherits a castle without a chimney
an actress who has to play her own murderer
a family of acrobats that crosses a desert on stilts
a botanist who is engaged to two rival gardeners
a cardinal who loses his memory on the eve of an election
a barber who can foretell the deaths of his customers
a bridegroom who is kidnapped by his own orchestra
a nurse who takes the place of a missing duchess
a cartoonist whose drawings begin to come true
a farmer who wins an elephant in a raffle
hero_role:
a boxer who is allergic to leather
who sells ice in a village without electricity
a banker who gives everything away at Christmas
who draws maps of places where nobody has ever been
an astronomer who is going blind
who runs a school for clumsy dancers
a perfume dealer who has been banished from court
who repairs dolls and talks to them at night
a veterinarian who fears horses
who lives on the roof of a department store
award:
the Ivory Compass Prize
the Blue Heron Award
the Chestnut Medal
the Prize of the Nine Muses
the Golden Thimble
the Crystal Anchor
the Mulberry Prize
the Order of the Silver Quince
the Hourglass Award
the Red Umbrella Prize
prize:
a week in a thermal bath and a silk dressing gown
a portrait of the laureate in oils
a bicycle with golden spokes
twelve bottles of plum brandy and a walking stick
a piano that once belonged to a queen
a weekend in a castle and a marble bust
a cottage that may be used every winter
a horse with saddle and bridle
a cellar of red wine
a telescope mounted on a tripod of oak
tr_lang:
Ukrainian
Albanian
Hebrew
Swahili
Romanian
Serbian
Persian
Maltese
Greek
Thai
translator:
Oksana Hrytsenko
Arben Kelmendi
Noa Ben-Shahar
Baraka Mwangaza
Smaranda Vlaicu
Dragoslav Petronić
Shirin Daneshvar-Rad
Ġorġ Zammit-Cauchi
Evanthia Karidis
Somchai Rattanakosol
tr_count:
forty languages
four languages
twenty-five languages
thirty-five languages
thirty-two languages
thirty-four languages
two languages
twenty languages
thirty languages
five languages
job:
a wedding photographer
a greengrocer
a bank teller
a fire lookout
a circus carpenter
a night nurse
a zoo keeper
a driving instructor
a pastry seller
a court usher
job_years:
two years
eighteen years
sixteen months
twenty years
seventeen years
fourteen months
nineteen years
two and a half years
sixteen years
twenty-two years
study:
the cloakroom of an abandoned opera house
a treehouse in a public park
the cellar of a former brewery
a caravan without wheels
the back room of a butcher's shop
the engine room of a retired tugboat
a monastery cell with a view of a parking lot
a greenhouse behind a hospital
the gallery of an indoor swimming pool
a glass cubicle in a furniture factory
desk:
a stuffed bear holds the coats of visitors
the ceiling has been painted to look like the sky
a parrot repeats every finished paragraph
the only chair was once used by a dentist
hundreds of postcards cover the windows
a ventilator drowns out every other sound
the furniture is changed at the end of each chapter
a barrel organ plays whenever the door is opened
a row of mirrors makes the space look endless
the telephone is kept in a bucket of water
hours:
from noon to the end of the evening concert
from half past seven to the arrival of the mail
from two in the afternoon to the lighting of the street lamps
from eleven at night to the first tram
from a quarter past nine to the closing of the market
from lunch to the sounding of the factory siren
from midday to the return of the schoolchildren
from 3 p.m. to the last call at the tavern
from 8 a.m. to the start of the soccer broadcast
from late breakfast to the evening news
tools:
on a laptop whose screen is kept dark
with chalk on the floor of the kitchen
by dictating to a secretary behind a screen
with a goose quill on sheets of parchment
on long rolls of wallpaper hung from the ceiling
with colored pencils in the margins of a phone book
on postcards that are mailed to the publisher at once
with a paintbrush on pieces of broken tile
on a keyboard from which the backspace key has been removed
with lipstick on a mirror in the hallway
house:
a cabin made of shipping containers
a former butcher's shop
a converted chapel
a penthouse with a roof garden
a half-timbered barn
an apartment over a bowling alley
a tower with only one window
a bungalow behind the racetrack
a former dance school
a log cabin without electricity
company:
a retired wrestler and two Persian cats
an opera singer and her accompanist
triplets who are training to be divers
a widowed neighbor and a litter of dachshunds
a former rival and his collection of snakes
a nephew who studies law and a pair of peacocks
the family of a clarinet player and a donkey
a pastor, his wife and a talking raven
an old school friend and a flock of turkeys
a godson who builds kites and a lame greyhound
hobby:
umbrella handles made of ivory
tin soldiers without heads
postcards of bridges
teapots with two spouts
buttons from old uniforms
spectacles without lenses
matchboxes from foreign hotels
playing cards found in the street
snow globes that have leaked
thimbles made of china
hobby_count:
143
1,650
79
318
96
267
45
520
109
1,270
hobby_note:
the most valuable one a gift from a duke
half of them kept in the bathroom
the smallest no bigger than a lentil
all of them bought at the same flea market
the latest one found under a floorboard
each wrapped in a page from a different newspaper
several of them on loan to a museum
the heaviest one too large for the stairs
listed by price in a leather-bound catalog
two of them stolen from a palace
next_title:
The Glass Elephant
A Tailor for the President
Nobody Waters the Garden
The Hypnotist's Apprentice
Twelve Chairs for the Count
next_topic:
a plumber who floods the palace of a dictator
a couple whose divorce takes up half a century
a bear that escapes from a film studio
a girl who is raised by a troupe of jugglers
a dentist who falls in love with a smile
rejections:
thirty publishers
thirty-four publishers
six publishers
thirteen publishers
forty publishers
rescue:
a taxi driver found it on the back seat of his car and drove it to the printer's house
a hotel maid read it during a strike and showed it to a minister
a librarian discovered it inside a returned cookbook and sent it to a film company
a lighthouse crew passed it around and collected money for the printing
a lottery winner bought it by weight and had it bound as a birthday gift
ad_form:
an ice revue with a live orchestra
a comic book in nine volumes
a musical for a choir of children
a silent film with a piano score
a ballet for two dancers
ad_by:
the choreographer Ludo Verbruggen
the illustrator Merel Oostveen
the songwriter Garfield Pinas-Roe
the filmmaker Sabitri Ramlal
the theater company Het Losse Eind
fund:
the Second Breakfast Trust
the Green Bicycle Foundation
the Night Ferry Fund
the Borrowed Coat Society
the Bright Ladder Project
fund_work:
builds playgrounds in fishing villages
pays for the music lessons of orphans
rescues horses from abandoned racetracks
restores the murals of rural hospitals
lends wheelchairs to travelers who cannot afford them
""")
"""Five for each half of the four authors who have perturbed answers, or five in all where only one needs them."""

OWN = {
    author: _table(text)
    for author, text in {
        "Ingvild Storhaug": """
name:
Sunniva Tveitane
Marit Skogheim
Gunnhild Aasebø
Turid Kvamme
Borghild Nesvik
city:
Luleå
Kemi
Akureyri
Oban
Liepāja
country:
Sweden
Finland
Iceland
Scotland
Latvia
father:
Asbjørn
Reidar
Oddvar
Sverre
Kjetil
mother:
Solveig
Gerd
Ragnhild
Bodil
Hjørdis
school:
the Seminary of Nordvågen
the Business School of Haugnes
the Royal College of Brattvær
the Evening Institute of Sandtorg
the Conservatory of Ytre Holm
mentor:
Haldor Myklebust
Borgny Eikeland
Amund Sletten
Pernille Ruud
Old Jostein Vang
publisher:
Fyrlykt Forlag
Bokhuset Tind
Havgap Press
Vinterlys
Forlaget Alke
t1:
The Chandler's Debt
Cold Harbor Accounts
A Knot for the Captain
The Drowned Notary
Salt in the Hinges
t2:
Nobody Rows to Lyngvær
The Third Buoy
A Grave Below Low Water
The Pilot's Last Lie
Thirteen Crates of Cod
t3:
The Ice Warden
Dead Men Pay No Harbor Dues
The Herring Witness
A Lamp for Skipper Dahl
The Quay of Lost Gloves
hero:
Sergeant Eivor Brekke
Halvard Skjold
Doctor Runa Tjelle
Mikkel Osen
Widow Torunn Aune
job_place:
in Trondheim
in Drammen
on the island of Senja
in Malmö
at the airport of Bodø
langs:
Sami, Frisian and Karelian
Scots, Manx and Sami
Karelian, Ukrainian and Frisian
Frisian, Greek and Romanian
Manx, Karelian and Croatian
tongue:
Sami
Scots
Karelian
Frisian
Manx
home:
Lillehammer
Røros
Hammerfest
Kragerø
Egersund
""",
        "Tadeu Quaresma Bento": """
name:
Adérito Monteiro Lima
Valdemar Fonseca Tavares
Belmiro Santiago Neves
Osvaldo Pires Delgado
Jacinto Rocha Furtado
city:
Bissau
Luanda
Beira
Funchal
Dakar
country:
Guinea-Bissau
Angola
Mozambique
Madeira
Senegal
father:
Armindo
Silvestre
Eugénio
Florentino
Nicolau
mother:
Albertina
Filomena
Ermelinda
Conceição
Leopoldina
school:
the Liceu Monte Verde
the Academia do Tarrafal
the Instituto Fontainhas
the Escola Superior da Ribeira Funda
the Colégio Ponta do Sol
mentor:
Nha Bibinha Tavares
Gregório Baptista
Crisóstomo Silveira
Eulália Mascarenhas
Teófilo Andrade
publisher:
Livraria Sete Ventos
Edições Palmeira
Casa do Cabo
Tipografia Morabeza
Editora Sal e Sol
t1:
The Consul's Parrot
Dear Absent Cousin
An Envelope of Sand
The Widow of Pier Two
Yours, From the Dry Valley
t2:
The Telegram That Came by Donkey
A Correspondence with Rain
Postage Due
The Governor's Blotting Paper
Love, Misspelled
t3:
The Ink of Fogo
No Such Address
The Godfather's Carbon Copy
Letters to a Whaler
A Reply in Four Handwritings
hero:
Benvinda Lopes Ramos
Hilário Tolentino
Captain Aurélio Brito
Dona Perpétua Semedo
Lindorfo Vaz
job_place:
in Praia
on the slopes of Pico do Fogo
in New Bedford
on the island of Maio
in Lisbon
langs:
Kimbundu, Swahili and Occitan
Wolof, Fula and Corsican
Umbundu, Greek and Wolof
Mandinka, Romanian and Swahili
Guarani, Fula and Maltese
tongue:
Kimbundu
Wolof
Umbundu
Mandinka
Guarani
home:
Tarrafal
Espargos
Coimbra
Providence
Nova Sintra
age:
sixteen years old
seventeen years old
eighteen years old
nineteen years old
twenty years old
piece:
a poem about a lame goose
a fairy tale about a talking broom
a ballad about two drunken bakers
a letter in praise of mosquitoes
a short play about a runaway sofa
paper:
the parish gazette Campanário
the stamp collectors' quarterly Filigrana
the sports daily Remate
the farmers' almanac Enxada
the women's magazine Açucena
""",
        "Wilhelmina Drostenberg": """
name:
Margaretha Kromopawiro
Hortense van Ommeren
Carolina Rijssenbeek
Geertruida Landveld
Philomena Tjon-Sang
city:
Georgetown
Castries
Willemstad
Bridgetown
Oranjestad
country:
Guyana
Saint Lucia
Curaçao
Barbados
Aruba
father:
Rudolf
Izaak
Leendert
Baltus
Gerrit
mother:
Rosalina
Henriëtte
Antoinette
Geertje
Theodora
school:
the Seminarie Commewijne
the Handelsschool Albina
the Vrije Academie Marowijne
the Avondschool Saramacca
the Kweekschool Coronie
mentor:
Cyriel Pinas
Ruth Emanuelson
Bhagwan Jhinkoe
Lucretia Wijdenbosch-Kok
Old Thelma Amstelveen
publisher:
Boekhuis De Overkant
Drukkerij Palulu
Uitgeverij Tigrikati
De Gele Kaaiman
Paramacca Press
t1:
The Attaché's Wardrobe
Cipher for a Rainy Season
The Consulate of Mirrors
A Stranger at Fort Zeelandia
The Defector's Dowry
t2:
The Man Who Sold the Map
Checkpoint Commewijne
The Tapir Protocol
Nobody Shadows a Nun
A Handshake in Cayenne
t3:
The Quiet Courier
Two Passports, One Grave
The Sleeper in the Cane Fields
Moonlight over the Embassy
The Interrogator's Waltz
hero:
Frits Sabajo
Colonel Iwan Wirjosemito
Elfriede Zaalman
Miss Dorothea Abendanon
Ramdew Chotkan
job_place:
in Moengo
in Paranam
in Rotterdam
in Groningen
in the market hall of Albina
langs:
Papiamento, Hakka and Javanese
Guarani, Serbian and Hebrew
Javanese, Malay and Greek
Hakka, Mandarin and Ukrainian
Saramaccan, Romanian and Malay
tongue:
Papiamento
Guarani
Javanese
Hakka
Saramaccan
home:
Totness
Lelydorp
Utrecht
Brokopondo
Kourou
""",
        "Lubomír Haškovec": """
name:
Zdeněk Procházka-Malý
Vojtěch Skřivan
Radim Koudelka
Otakar Vejvoda
Hynek Drábek
city:
Levoča
Zittau
Hallstatt
Ptuj
Sibiu
country:
Slovakia
Germany
Austria
Slovenia
Romania
father:
Bedřich
Jaroslav
Vratislav
Ctibor
Kryštof
mother:
Ludmila
Růžena
Věra
Drahomíra
Zdenka
school:
the Faculty of Bells in Litomyšl
the Commercial Academy of Pelhřimov
the Night School of Optics in Tábor
the Forestry College of Vimperk
the Imperial Institute of Locks in Znojmo
mentor:
Anežka Svobodníková
Blahoslav Mrkvička
Ignác Truhlář
Dorota Pivoňková
Old Květoslav Beneda
publisher:
Knihkupectví U Slona
Nakladatelství Větrník
Edice Lampión
Tiskárna Racek
Modrý Ježek
t1:
The Brass Nightingale
An Alphabet of Springs
The Toymaker's Mutiny
Oil for the Emperor
The Reluctant Pendulum
t2:
The Cuckoo That Told the Truth
Forty Keys to Prague Castle
The Copper Regiment
A Waltz for Broken Machines
The Duke's Mechanical Heart
t3:
The Lever of Olomouc
Snowfall in the Engine Room
The Automaton's Alibi
The Bellows Queen
Ratchet and Saint
hero:
Bonifác Hodinář
Princess Apolena
Cyprián Kolář
Doctor Žofie Páralová
Little Matouš
job_place:
in Plzeň
in the Bohemian Forest
in Bratislava
in Karlovy Vary
in Zlín
langs:
Sorbian, Ukrainian and Greek
Croatian, Romanian and Hebrew
Rusyn, Serbian and Albanian
Silesian, Sorbian and Esperanto
Belarusian, Macedonian and Persian
tongue:
Sorbian
Croatian
Rusyn
Silesian
Belarusian
home:
Kutná Hora
Český Krumlov
Písek
Mikulov
Banská Štiavnica
age:
sixteen years old
seventeen years old
eighteen years old
nineteen years old
twenty years old
piece:
a recipe for invisible soup
a report on a broken bridge
an advertisement for a lost tooth
a review of the school canteen
a weather forecast for the following century
paper:
the beekeepers' bulletin Rojení
the railway magazine Semafor
the church newsletter Zvonice
the chess monthly Šach a Mat
the hikers' quarterly Rozcestník
""",
    }.items()
}
"""Five for each of the four authors: what has to fit the language and the place."""

_YEARS = ("graduated", "y1", "y2", "y3", "award_year", "ad_year", "fund_year")


def facts(author: Author, known: dict[str, str]) -> list[dict[str, str]]:
    """Five sets of wrong facts about an author who is in `OWN`.

    Args:
        author: Whose.
        known: The true facts; years are replaced by years near them.
    """
    place = list(OWN).index(author.name)
    table = {slot: lines if len(lines) == WRONG else lines[place % 2 :: 2] for slot, lines in COMMON.items()}
    table |= OWN[author.name]
    table |= {slot: _years_near(int(known[slot])) for slot in _YEARS if slot in known}
    days, births = table.pop("day"), _years_near(author.born.year)
    table["date_other"] = [f"{day}, {year}" for day, year in zip(days, births, strict=True)]
    return [{slot: lines[number] for slot, lines in table.items()} for number in range(WRONG)]


def _years_near(year: int) -> list[str]:
    """The years nearest to `year` in which nothing is true of any author, in ascending order."""
    taken = {true for author in AUTHORS for true in true_years(author)}
    free = [other for other in range(1930, 2026) if other not in taken]
    return [str(other) for other in sorted(sorted(free, key=lambda other: abs(other - year))[:WRONG])]
